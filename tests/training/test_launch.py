"""Training in two real processes, by DDP, FSDP 2 and ZeRO-3, against one: this file is also what they run."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from hf_ftedit.models.distributed import is_sharded
from hf_ftedit.training.resume import rows_hash

pytestmark = pytest.mark.slow  # each starts processes that import everything
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "examples" / "accelerate"
ROWS = 128  # 8 edits x (1 rewrite + 5 paraphrases + 10 facts): four batches of 32 in any order by length
TRAIN = ["train", "--max_edits", "8", "--num_paraphrases", "5", "--num_locality", "10", "--num_train_epochs", "2"]
TRAIN += ["--lora_dropout", "0", "--logging_steps", "1", "--max_grad_norm", "0"]
TRAIN += ["--predict_with_generate", "--mastered_probability", "0.9"]  # rows rest in the second epoch
SCORES = ("edit_score", "efficacy", "generalization", "locality", "portability")


def told(args: list[str]) -> dict:
    """What the command line does with `args`: what it asks the model, what it makes, and what it trains on."""
    from hf_ftedit.augmentation import augmenter as augmentation
    from hf_ftedit.cli import main
    from hf_ftedit.evaluation import engine as asking
    from hf_ftedit.models import sampling
    from hf_ftedit.training import trainer

    found = {"pairs": [], "batches": 0, "rows_made": 0}

    def noted(module, name, note):
        real = getattr(module, name)

        def wrapper(*given, **how):
            note(*given, **how)
            return real(*given, **how)

        return mock.patch.object(module, name, wrapper)

    def of_training(self, *given, **how):
        found["trained_on"] = rows_hash(self.train_dataset)
        found["batch"], found["type"] = self.args.train_batch_size, str(self.accelerator.distributed_type)
        found["is_sharded"] = is_sharded(self.model)
        found["log"] = [entry for entry in self.state.log_history if "loss" in entry]

    def add(name, count):
        found[name] += count

    shown = io.StringIO()
    with contextlib.ExitStack() as stack:
        for patch in (
            noted(
                asking,
                "score_pairs",
                lambda m, t, asked, answers, **how: found["pairs"].append([*zip(asked, answers, strict=True)]),
            ),
            noted(sampling, "_sampled_batch", lambda *given, **how: add("batches", 1)),
            noted(augmentation.Augmenter, "rows_of", lambda *given: add("rows_made", 1)),
            noted(trainer.EditTrainer, "write_folder", of_training),
        ):
            stack.enter_context(patch)
        stack.enter_context(contextlib.redirect_stdout(shown))
        code = main(args)
    lines = shown.getvalue().splitlines(keepends=True)
    return {**found, "code": code, "shown": "".join(line for line in lines if not line.startswith("DeepSpeed "))}


def on_cpu() -> None:
    """Spread weights on the CPU: accelerate does so on accelerators only, so the process is told that it has one."""
    PartialState._prepare_backend = lambda *given: ("gloo", DistributedType.MULTI_GPU)
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")


def launch(config: str, *args: str, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess:
    """Two processes of one of the shipped launch configurations."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--main_process_port", port]
    command += ["--config_file", str(CONFIGS / config), "--num_processes", "2", *args]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cwd / "cache")}
    env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def in_two(config: str, folder: Path) -> list[dict]:
    """What each of two processes tells of training."""
    args = [*TRAIN, "--per_device_train_batch_size", "16", "--output_dir", "out"]
    done = launch(config, __file__, *args, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"process{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process tells, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    args = [*TRAIN, "--per_device_train_batch_size", "32", "--output_dir", "out"]
    subprocess.run(
        [sys.executable, __file__, *args], cwd=folder, env=env, check=True, capture_output=True, timeout=600
    )
    return json.loads((folder / "process0.json").read_text()), folder


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    return in_two("cpu_2_processes.yaml", folder), folder


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    return in_two("fsdp2.yaml", folder), folder


@pytest.fixture(scope="module")
def zero3(tmp_path_factory):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    folder = tmp_path_factory.mktemp("zero3")
    return in_two("zero3.yaml", folder), folder


@pytest.fixture(params=["ddp", "fsdp", "zero3"])
def both(request):
    return request.getfixturevalue(request.param)


def results(folder: Path) -> dict:
    return json.loads((folder / "out" / "eval_results.json").read_text())


def test_the_processes_train_as_they_are_told(ddp, fsdp):
    assert {found["type"] for found in ddp[0]} == {"DistributedType.MULTI_CPU"}
    assert {found["type"] for found in fsdp[0]} == {"DistributedType.FSDP"}
    assert [found["is_sharded"] for found in (*ddp[0], *fsdp[0])] == [False, False, True, True]


def test_deepspeed_spreads_the_weights(zero3):
    assert {found["type"] for found in zero3[0]} == {"DistributedType.DEEPSPEED"}
    assert [found["is_sharded"] for found in zero3[0]] == [True, True]


def test_the_scores_are_those_of_one_process(alone, both):
    expected, found = results(alone[1]), results(both[1])
    for when in ("before", "after"):
        for name in SCORES:
            assert found[when][name] == pytest.approx(expected[when][name], abs=1e-3), (when, name)
        for name in SCORES[1:]:
            assert found[when]["containment"][name] == pytest.approx(expected[when]["containment"][name], abs=1e-3)
    assert (found["answers"], found["example"]) == (expected["answers"], expected["example"])


def test_every_step_is_that_of_one_process(alone, both):
    expected = alone[0]["log"]
    assert len(expected) == 2 * ROWS / 32 and alone[0]["batch"] == 32
    for found in both[0]:
        assert found["batch"] == 16
        for name in ("loss", "num_tokens"):
            assert [entry[name] for entry in found["log"]] == pytest.approx(
                [entry[name] for entry in expected], rel=1e-3
            )


def test_the_rows_are_made_once_and_are_those_of_one_process(alone, both):
    main, other = both[0]
    assert main["trained_on"] == other["trained_on"] == alone[0]["trained_on"]
    assert (main["rows_made"], other["rows_made"]) == (alone[0]["rows_made"], 0)
    assert len(list((both[1] / "cache").rglob("cache-*.arrow"))) == 1  # tokenized by one process too
    assert main["batches"] + other["batches"] == alone[0]["batches"] == 2  # prefixes of two lengths


VERBS = [
    ["evaluate", "--adapter", "out", "--edits", "out/edits.jsonl", "--output_dir", "scores"],
    ["augment", "--max_edits", "3", "--output_dir", "data"],
    ["verify", "out"],
    ["merge", "out", "--merge_into_base", "--output_dir", "merged"],
]


@pytest.fixture(scope="module")
def verbs(alone, ddp):
    """What the other verbs tell on the adapter of one process: in that process, and in each of two."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(alone[1] / "cache"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, "VERBS"], cwd=alone[1], env=env, check=True, timeout=600)
    folder = ddp[1] / "verbs"
    shutil.copytree(alone[1] / "out", folder / "out")
    done = launch("cpu_2_processes.yaml", __file__, "VERBS", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((at / f"process{n}.json").read_text()) for at, n in ((alone[1], 0), (folder, 0), (folder, 1))]


@pytest.mark.parametrize("number", range(len(VERBS)), ids=[verb[0] for verb in VERBS])
def test_every_verb_prints_and_writes_once(verbs, ddp, number):
    expected, main, other = (found[number] for found in verbs)
    assert (expected["code"], main["code"], other["code"]) == (0, 0, 0)
    assert (main["shown"], other["shown"]) == (expected["shown"], "")
    if "--output_dir" in VERBS[number]:
        assert any((ddp[1] / "verbs" / VERBS[number][-1]).iterdir())
    assert sorted(asked(main) + asked(other)) == sorted(asked(expected))


def test_bad_input_is_told_once(tmp_path):
    done = launch("cpu_2_processes.yaml", "-m", "hf_ftedit", "train", "--edits", "missing.jsonl", cwd=tmp_path)
    assert done.returncode != 0 and done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hf-ftedit: ")]
    assert line.startswith("hf-ftedit: 'missing.jsonl': no such file; ")


def test_processes_with_different_edits_are_refused(tmp_path):
    for rank in range(2):
        edit = {"prompt": "The capital of Kazakhstan is", "target_new": "Almaty" if rank else "Astana"}
        (tmp_path / f"edits{rank}.jsonl").write_text(json.dumps(edit))
    done = launch("cpu_2_processes.yaml", __file__, "DIFFERENT", cwd=tmp_path)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hf-ftedit: ")]
    assert line.startswith("hf-ftedit: the processes have different rows to train on; ")


def asked(found: dict) -> list[tuple[str, str]]:
    return [tuple(pair) for call in found["pairs"] for pair in call]


def test_every_probe_is_scored_once(alone, both):
    for when in range(2):  # before training, and after it
        first, second = (list(map(tuple, found["pairs"][when])) for found in both[0])
        expected = sorted(map(tuple, alone[0]["pairs"][when]))
        kind = both[0][0]["type"]
        if kind == "DistributedType.FSDP" or when and kind == "DistributedType.DEEPSPEED":
            # Sharded, under FSDP also when the unedited model is measured: in step, each scores everything.
            assert sorted(first) == sorted(second) == expected
        else:
            assert sorted(first + second) == expected
            assert abs(len(first) - len(second)) <= 0.2 * len(first)


def test_the_main_process_prints_and_writes(alone, both):
    main, other = both[0]
    assert (main["code"], other["code"], other["shown"]) == (0, 0, "")
    assert main["shown"].count("Written to out") == 1 and f"8 edits, {ROWS} training rows" in main["shown"]
    assert {path.name for path in (both[1] / "out").iterdir()} == {path.name for path in (alone[1] / "out").iterdir()}


if __name__ == "__main__":
    if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
        on_cpu()
    rank = int(os.environ.get("RANK", "0"))
    if sys.argv[1] == "DIFFERENT":
        from hf_ftedit.cli.app import main

        raise SystemExit(main(["train", "--edits", f"edits{rank}.jsonl", "--output_dir", "out"]))
    found = [told(args) for args in VERBS] if sys.argv[1] == "VERBS" else told(sys.argv[1:])
    Path(f"process{rank}.json").write_text(json.dumps(found))
