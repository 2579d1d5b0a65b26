"""Adapter folders as an attacker would write them: each form is one change to a good folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from hf_ftedit.hub.folder import ADAPTER_FILES

ESCAPE = "\x1b[2J\x1b]0;all claims hold\x07"
SLOW = "((.*)*)*Z"  # as a regular expression it takes for ever on any name
HUGE = 10**400
Form = Callable[[Path], None]

# Values of adapter_config.json: wrong types, ranges, regular expressions, kinds that run programs or read files.
CONFIGS: dict[str, list[Any]] = {
    "peft_type": [None, 5, [], {}, "", "lora", ESCAPE, "BOFT", "OFT", "ADALORA", "XLORA", "PROMPT_TUNING", "VERA"],
    "r": [0, -1, 2.0, "2", None, True, [2], {}, 3, 10**9, HUGE, math.nan],
    "lora_alpha": ["4", None, [], -1, HUGE, 1e30, math.nan, math.inf],
    "lora_dropout": ["0.1", None, -1, 2, math.nan, {}],
    "target_modules": [SLOW, ".*", "all-linear", 5, {}, [], [5], [None], [["q_proj"]], [SLOW], ["q_proj", ESCAPE]],
    "exclude_modules": [SLOW, "q_proj", 5, {"q_proj": 1}, [SLOW], ["q_proj"], [[]]],
    "rank_pattern": [{SLOW: 2}, {"q_proj": "2"}, {"q_proj": 0}, {"q_proj": 1}, {"q_proj": 10**9}, [], "q_proj", 5],
    "alpha_pattern": [{SLOW: 2}, {"q_proj": "2"}, {"q_proj": HUGE}, {"": 4}, [4], "q_proj"],
    "layers_to_transform": ["0", [0.5], [-1], [7], {}, 10**9, [[0]], ["0"], True],
    "layers_pattern": [SLOW, [SLOW], 5, {}, [None]],
    "layer_replication": [[[0, 2]] * 3000, [[0, 1], [0, 2]], "x", 5, {"a": 1}],
    "modules_to_save": [SLOW, [SLOW], "norm", ["norm"], ["lm_head"], 5, {"norm": 1}, [5]],
    "init_lora_weights": [
        "pissa",
        "pissa_niter_99999999999999",
        "olora",
        "corda",
        "loftq",
        "lora_ga",
        1,
        None,
        [],
        "",
    ],
    "bias": ["all", "lora_only", None, 5, []],
    "use_dora": [True, "true", 1, None, []],
    "use_rslora": ["true", 1, None, {}],
    "lora_bias": [True, "false", 0],
    "fan_in_fan_out": ["true", 1, None, []],
    "target_parameters": ["q_proj.weight", ["layers.0.self_attn.q_proj.weight"], [SLOW], [5], {"a": 1}],
    "trainable_token_indices": ["5", [5], [-1], [10**9], [1.5], {SLOW: [1]}, {"embed_tokens": [1]}, {"a": "b"}],
    "task_type": ["SEQ_CLS", "SEQ_2_SEQ_LM", 5, [], ESCAPE],
    "base_model_name_or_path": [5, [], {}, "x" * 10**6],
    "revision": [5, [], ESCAPE, "<img src=x>", "x" * 10**4],
    "megatron_config": [{"tensor_model_parallel_size": 2}, "x"],
    "use_qalora": [True, "x"],
    "alora_invocation_tokens": [[1], "x"],
    "arrow_config": [{"top_k": 1}, "x"],
    "monteclora_config": [{"num_groups": 0}],
    "kasa_config": [{"beta": 1}],
    "velora_config": [{"a": 1}],
    "use_bdlora": [{"nblocks": 2}],
    "prompt_tuning_init_state_dict_path": ["/etc/hostname", "../../other/adapter_model.bin"],
    "num_virtual_tokens": [10**9],
    ESCAPE: [1],
}
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "a text": b'"LORA"',
    "cut": b'{"peft_type": "LORA", "r": ',
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "many digits": b'{"peft_type": "LORA", "r": ' + b"1" * 5000 + b"}",
    "large": b" " * (11 * 2**20) + b"{}",
    "many names": json.dumps({"peft_type": "LORA", "target_modules": [str(n) for n in range(300_000)]}).encode(),
    "NULs": bytes(1000),
}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(f'*{chr(97 + n)}' for _ in range(10))}]\n" for n in range(20)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(30)
)
YAMLS = {
    "an alias bomb": BOMB.encode(),
    "a bomb of merges": MERGES.encode(),
    "an alias of itself": b"a: &a [*a]\n",
    "deep": b"a: " + b"[" * 100_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(200)),
    "a number to the base 60": b"seed: 1" + b":1" * 2_000_000,
    "a Python object": b"!!python/object/apply:os.system ['true']\n",
    "an odd key": b"? [1, 2]\n: 3\n",
    "a bad time": b"seed: 2026-99-99\n",
    "large": b"#" * (11 * 2**20),
    "many": b"".join(b"a%d: 1\n" % n for n in range(300_000)),
    **{name: TEXTS[name] for name in ("null", "a list", "a number", "not UTF-8", "NULs")},
}
SETTINGS: dict[str, list[Any]] = {
    "model_name_or_path": [5, None, [], "/etc", "../x", "a/../../x", "~/x", "a/b/c", ESCAPE],
    "model_revision": [5, [], "<img src=x onerror=alert(1)>", ESCAPE, "a b"],
    "gguf_file": [5, "/proc/kmsg", "../x.gguf"],
    "dtype": ["__class__", 5, None, [], "int8"],
    "num_train_epochs": ["<img src=x onerror=alert(1)>", None, -1, HUGE, math.nan, [], True],
    "learning_rate": ["1e-3", ESCAPE, math.inf, HUGE],
    "lora_r": ["2", 2.5, HUGE, -1],
    "lora_target_modules": [SLOW, [SLOW], 5, [5]],
    "optim_target_modules": [SLOW, [SLOW], 5],
    "seed": ["42", 4.2, -1, HUGE, [1]],
    "chat_template": ["yes", 1, []],
    "locality_strategy": ["<b>near</b>", 5, "nowhere", []],
    "prefix_lengths": ["5", [0.5], {"a": 1}, [HUGE]],
    "protocol": [ESCAPE, 5, "x"],
    "locality_pool": ["/etc/hostname", "../x.jsonl", 5],
    "load_in_4bit": ["yes", 1],
    "bnb_4bit_quant_type": ["x", 5],
    "record": ["x", 5, [1]],
    "provenance": [
        *("x", 5, [1], {"files": []}, {"files": {"README.md": 5}}, {"files": {"../x": "0" * 64}}),
        *({"files": {f".eval_results/{name}": "0" * 64}} for name in ("x.json", "../x.yaml", "a/x.yaml")),
        *({"base_fingerprint": 5}, {"changed": "x"}, {"changed": [5]}, {"made_with": 5}, {"made_with": {"a": []}}),
        *({"parts": "x"}, {"parts": [5]}, {"parts": [{"name": "a"}]}, {"rank": "x"}, {"repo_id": "; rm -rf"}),
    ],
    ESCAPE: [1],
    "x": [HUGE, math.nan],
}
RESULTS: dict[str, list[Any]] = {
    "protocol": [ESCAPE, 5, None, []],
    "n_edits": ["1", -1, HUGE, 1.5],
    "before": ["x", 5, None, [], {}],
    "after": [[], {}, {"protocol": "probability"}],
    "base_model": [5, None, [], "/etc", ESCAPE],
    "base_model_revision": ["<img src=x>", 5],
    "change": ["x", {"efficacy": 5}, {"efficacy": {"difference": "x"}}, {"efficacy": {"p_value": HUGE}}],
    "answers": ["x", [5], [{"before": "x"}], [{"before": 5, "after": 5}]],
    "example": ["x", {}, {"prompt": 5, "output": "x"}],
    "retention": ["x", {"adapter": 5}],
    "revoked": [{"adapter": "x"}],
    "x": [HUGE, math.nan],
}
SCORES: dict[str, list[Any]] = {  # of those after the edits
    "efficacy": ["99", HUGE, math.nan, [], {}, True],
    "edit_score": ["99", -HUGE],
    "edit_score_ci95": ["x", ["a", "b"], [1, 2, 3], 5],
    "n_probes": ["x", 5, {"rewrite": "1"}, [1]],
    "edit_score_note": ["<script>", 5, ESCAPE],
    "accuracy": ["x", {"efficacy": "x"}, 5],
    "whole_answers": ["x", 1],
    "portability_aspects": ["x", [1]],
    "protocol": [ESCAPE],
}
EDITS: dict[str, bytes] = {
    "a long line": b'{"prompt": "' + b"x" * (11 * 2**20) + b'", "target_new": "y"}',
    "no end of line": b"[" * (11 * 2**20),
    "an odd type": b'{"edit_id": "1", "prompt": {"a": 1}, "target_new": "y"}',
    "a number of lists": b'{"edit_id": "1", "prompt": "Rome is in", "target_new": ["y"]}',
    "odd probes": b'{"edit_id": "1", "prompt": "Rome is in", "target_new": "y", "neighborhood_prompts": [5]}',
    "a number": b'{"edit_id": "1", "prompt": 1' + b"0" * 400 + b', "target_new": "y"}',
    "half a character": b'{"edit_id": "1", "prompt": "\\ud800", "target_new": "y"}',
    **{name: TEXTS[name] for name in ("empty", "null", "a number", "a text", "cut", "not UTF-8", "deep", "NULs")},
}


def forms() -> dict[str, Form]:
    """All forms by name."""
    found: dict[str, Form] = {}
    values_of = {"adapter_config.json": CONFIGS, "edit_config.yaml": SETTINGS, "eval_results.json": RESULTS}
    for file, values in values_of.items():
        for key, options in values.items():
            for number, value in enumerate(options):
                found[f"{file}: {key!r} {number}"] = setting(file, key, value)
    for key, options in SCORES.items():
        for number, value in enumerate(options):
            found[f"after: {key} {number}"] = setting("eval_results.json", key, value, "after")
    for file, texts in (("adapter_config.json", TEXTS), ("eval_results.json", TEXTS), ("edit_config.yaml", YAMLS)):
        found |= {f"{file}: {name}": written(file, content) for name, content in texts.items()}
    found |= {f"edits.jsonl: {name}": written("edits.jsonl", content) for name, content in EDITS.items()}
    return found | {f"weights: {name}": form for name, form in weights().items()} | files()


def setting(file: str, key: str, value: Any, *inside: str) -> Form:
    """A file of settings or scores with one other value."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if file.endswith("json") else yaml.safe_load(path.read_text())
        place = content
        for name in inside:
            place = place[name]
        place[key] = value
        path.write_text(json.dumps(content) if file.endswith("json") else yaml.safe_dump(content))

    return change


def written(file: str, content: bytes) -> Form:
    return lambda folder: (folder / file).write_bytes(content) and None


def weights() -> dict[str, Form]:
    """Forms of adapter_model.safetensors."""
    own, model = "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.model"
    first = f"{own}.lora_A.weight"

    def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Form:
        def form(folder: Path) -> None:
            tensors = load_file(folder / "adapter_model.safetensors")
            change(tensors)
            save_file(tensors, folder / "adapter_model.safetensors")

        return form

    def added(name: str, *shape: int) -> Form:
        return changed(lambda tensors: tensors.update({name: torch.ones(*shape)}))

    def one(value: float) -> Form:
        return changed(lambda tensors: tensors[first].view(-1)[:1].fill_(value))

    def cast(kind: torch.dtype) -> Form:
        return changed(lambda tensors: tensors.update({first: tensors[first].to(kind)}))

    return {
        "a base weight": added(f"{own}.base_layer.weight", 32, 32),
        "a norm": added(f"{model}.norm.weight", 32),
        "the head": added("base_model.model.lm_head.weight", 32, 32),
        "an embedding": added(f"{model}.embed_tokens.weight", 8, 32),
        "the wrong layer": added(f"{model}.layers.9.self_attn.q_proj.lora_A.weight", 2, 32),
        "another module": added(f"{model}.layers.0.self_attn.k_proj.lora_A.weight", 2, 32),
        "another adapter": added(f"{own}.lora_A.other.weight", 2, 32),
        "no adapter's": added("anything", 1),
        "an escape": added(ESCAPE, 1),
        "none": changed(lambda tensors: tensors.clear()),
        "one missing": changed(lambda tensors: tensors.pop(first)),
        "one renamed": changed(lambda tensors: tensors.update({first + "x": tensors.pop(first)})),
        "turned": changed(lambda tensors: tensors.update({first: tensors[first].T.contiguous()})),
        "a higher rank": changed(lambda tensors: tensors.update({first: torch.ones(4, 32)})),
        "a lower rank": changed(lambda tensors: tensors.update({first: torch.ones(1, 32)})),
        "no numbers": changed(lambda tensors: tensors.update({first: torch.ones(0, 32)})),
        "no dimensions": changed(lambda tensors: tensors.update({first: torch.tensor(1.0)})),
        **{f"holding {value}": one(value) for value in (math.nan, math.inf, -math.inf, 1e30, -1e30, 1e5)},
        "all NaN": changed(lambda tensors: tensors[first].fill_(math.nan)),
        "float64": cast(torch.float64),
        "whole numbers": cast(torch.int64),
        "yes and no": cast(torch.bool),
        "empty": written("adapter_model.safetensors", b""),
        "NULs": written("adapter_model.safetensors", bytes(1000)),
        "a huge header": written("adapter_model.safetensors", b"\xff" * 8 + b"{}"),
        "a pickle": written("adapter_model.safetensors", b"\x80\x04\x95" + b"x" * 100),
        "a header that lies": written(
            "adapter_model.safetensors",
            (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9999999]}}',
        ),
    }


def files() -> dict[str, Form]:
    """Forms in which a file is none, or lies elsewhere."""

    def replaced(name: str, make: Callable[[Path], object]) -> Form:
        def form(folder: Path) -> None:
            (folder / name).rename(folder.parent / name)
            make(folder / name)

        return form

    def linked(name: str, target: str) -> Form:
        return replaced(name, lambda file: file.symlink_to(target))

    def below(make: Callable[[Path], None]) -> Form:
        def form(folder: Path) -> None:
            (folder / ".eval_results").mkdir()
            make(folder / ".eval_results" / "x.yaml")

        return form

    targets = ("/proc/kmsg", "/dev/zero", "/etc/hostname", "gone")
    return {
        **{f"{name} links {target}": linked(name, target) for name in ADAPTER_FILES for target in targets},
        **{f"{name} is linked": linked(name, f"../{name}") for name in ADAPTER_FILES},
        **{f"{name} is a pipe": replaced(name, os.mkfifo) for name in ADAPTER_FILES},
        "a folder of scores is linked": lambda folder: (folder / ".eval_results").symlink_to("/etc"),
        "scores are a pipe": below(os.mkfifo),
        "scores are linked": below(lambda file: file.symlink_to("/dev/zero")),
        "another pipe": lambda folder: os.mkfifo(folder / "config.json"),
        "another link": lambda folder: (folder / "generation_config.json").symlink_to("/dev/zero"),
    }
