"""Adapters that others wrote: the kinds that load, exactly as PEFT loads them, and what is looked at before."""

import copy
import json

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import bpe_tokenizer, logits, tiny_model

from hf_ftedit.errors import EditError
from hf_ftedit.hub.folder import save_weights
from hf_ftedit.models.adapters import (
    adapter_settings,
    check_adapter,
    check_peft_config,
    check_peft_model,
    load_adapter,
    merged,
)
from hf_ftedit.models.loading import unedited, weights_fingerprint

TOKENIZER = bpe_tokenizer()
PLAIN = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
# What the package can be told to train.
KINDS = {
    "plain": PLAIN,
    "no task": PLAIN | {"task_type": None},
    "rsLoRA": PLAIN | {"use_rslora": True},
    "DoRA": PLAIN | {"use_dora": True},
    "all linear": PLAIN | {"target_modules": "all-linear"},
    "embedding": PLAIN | {"target_modules": ["q_proj", "embed_tokens"]},
    "layers": PLAIN | {"layers_to_transform": [1]},
    "whole modules": PLAIN | {"modules_to_save": ["norm"]},
    "new tokens": PLAIN | {"trainable_token_indices": [5, 7]},
    "ranks": PLAIN | {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.self_attn.v_proj": 6}},
    "without some": PLAIN | {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "single weights": {"r": 2, "target_modules": [], "target_parameters": ["q_proj.weight"]},
}
PATTERNS = {
    "modules": PLAIN | {"target_modules": r".*\.(q|v)_proj"},
    "left out": PLAIN | {"exclude_modules": r".*\.0\..*"},
    "ranks": PLAIN | {"rank_pattern": {r"layers\.\d\.self_attn\.q_.*": 3}, "alpha_pattern": {".*v_proj": 6}},
    "layers": PLAIN | {"layers_to_transform": [1], "layers_pattern": ["lay.*s"]},
}


@pytest.fixture(scope="module")
def base():
    return tiny_model("llama", TOKENIZER)


def saved(base, config, folder):
    """An adapter that does something, as the package saves it; and what it says."""
    model = get_peft_model(copy.deepcopy(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.3)
    folder.mkdir()
    save_weights(folder, model, TOKENIZER)
    return logits(model)


@pytest.mark.parametrize("kind", [*KINDS, "IA3"])
def test_each_kind_loads_as_peft_loads_it(base, tmp_path, kind):
    config = LoraConfig(**KINDS[kind]) if kind in KINDS else IA3Config(task_type="CAUSAL_LM")
    said = saved(base, config, tmp_path / "a")
    model = load_adapter(copy.deepcopy(base), tmp_path / "a")
    assert not model.training
    alone = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a")
    assert torch.equal(logits(model), logits(alone))
    torch.testing.assert_close(logits(model), said, rtol=0, atol=1e-6)
    assert not torch.allclose(said, logits(base), atol=1e-3)
    assert weights_fingerprint(model) == weights_fingerprint(base)
    with unedited(model):
        assert torch.equal(logits(model), logits(base))
    assert torch.equal(logits(model), logits(alone))


@pytest.mark.parametrize("kind", [*KINDS, *PATTERNS, "IA3"])
def test_each_kind_may_be_trained_and_looking_changes_nothing(base, kind):
    config = IA3Config(task_type="CAUSAL_LM") if kind == "IA3" else LoraConfig(**(KINDS | PATTERNS)[kind])
    model, settings = copy.deepcopy(base).requires_grad_(), config.to_dict()
    before, state = weights_fingerprint(model), torch.get_rng_state()
    check_peft_config(config, model)
    assert config.to_dict() == settings and torch.equal(torch.get_rng_state(), state)
    assert weights_fingerprint(model) == before and all(weight.requires_grad for weight in model.parameters())
    assert not hasattr(model, "peft_config")
    check_peft_model(get_peft_model(model, config))


REFUSED = {
    "PiSSA": (PLAIN | {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    "PiSSA in steps": (PLAIN | {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    "OLoRA": (PLAIN | {"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
    "biases": (PLAIN | {"bias": "all"}, "bias is 'all'"),
    "layers twice": (PLAIN | {"layer_replication": [(0, 2), (1, 2)]}, "'layer_replication' is not known"),
    "rank 0": (PLAIN | {"r": 0, "rank_pattern": {"q_proj": 0}}, "is 0, not a whole number"),
    "a bias of layers without": (PLAIN | {"lora_bias": True}, "lora_bias is for layers with a bias"),
    "the head": (PLAIN | {"target_modules": ["lm_head"]}, "the output head"),
    "no such module": (PLAIN | {"target_modules": ["c_attn"]}, "does not fit this model: Target modules"),
    "aLoRA": (PLAIN | {"alora_invocation_tokens": [1]}, "'alora_invocation_tokens' is not known"),
    "prompts": (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "peft_type is 'PROMPT_TUNING'"),
    "AdaLoRA": (AdaLoraConfig(target_modules=["q_proj"], total_step=5), "peft_type is 'ADALORA'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_not_be_loaded_again_is_refused_before_training(base, kind):
    settings, message = REFUSED[kind]
    before = weights_fingerprint(base)
    with pytest.raises(EditError, match=message):
        check_peft_config(LoraConfig(**settings) if isinstance(settings, dict) else settings, base)
    assert weights_fingerprint(base) == before


@pytest.mark.parametrize("kind", ["PiSSA", "biases", "prompts"])
def test_also_in_a_model_that_has_it_already(base, kind):
    settings, message = REFUSED[kind]
    config = LoraConfig(**settings) if isinstance(settings, dict) else settings
    with pytest.raises(EditError, match=message):
        check_peft_model(get_peft_model(copy.deepcopy(base), config))


TIED = {
    "gpt2": ("wte", "c_attn"),
    "gemma": ("embed_tokens", "q_proj"),
    "gemma3_text": ("embed_tokens", "q_proj"),
    "qwen3": ("embed_tokens", "q_proj"),
}


@pytest.mark.parametrize("kind", ["embedding", "DoRA", "new tokens", "whole embedding", "IA3"])
@pytest.mark.parametrize("family", TIED)
def test_merging_into_a_tied_embedding_says_the_same(family, kind, tmp_path):
    embedding, layer = TIED[family]
    tied = tiny_model(family, TOKENIZER)
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    transposed = family == "gpt2"
    lora = {"r": 2, "target_modules": [embedding, layer], "task_type": "CAUSAL_LM", "fan_in_fan_out": transposed}
    config = {
        "embedding": LoraConfig(**lora),
        "DoRA": LoraConfig(**lora | {"use_dora": True}),
        "new tokens": LoraConfig(**lora | {"target_modules": [layer], "trainable_token_indices": [5, 7]}),
        "whole embedding": LoraConfig(**lora | {"target_modules": [layer], "modules_to_save": [embedding]}),
        "IA3": IA3Config(
            task_type="CAUSAL_LM", target_modules=[layer], feedforward_modules=[], fan_in_fan_out=transposed
        ),
    }[kind]
    check_peft_config(config, tied)
    said = saved(tied, config, tmp_path / "a")
    model = load_adapter(copy.deepcopy(tied), tmp_path / "a")
    torch.testing.assert_close(logits(model), said, rtol=0, atol=1e-6)
    whole = merged(model)
    torch.testing.assert_close(logits(whole), said, rtol=0, atol=1e-4)
    whole.save_pretrained(tmp_path / "whole")
    again = type(whole).from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(again), said, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", PATTERNS)
def test_a_pattern_of_ones_own_is_written_as_names(base, tmp_path, kind):
    said = saved(base, LoraConfig(**PATTERNS[kind]), tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    keys = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
    assert not set("*\\(") & set("".join(name for key in keys for name in settings[key] or ()))
    torch.testing.assert_close(logits(load_adapter(copy.deepcopy(base), tmp_path / "a")), said, rtol=0, atol=1e-6)
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    layers = {name.split(".")[4] for name in weights}
    assert layers == ({"1"} if kind in ("left out", "layers") else {"0", "1"})
    ranks = {name.split(".")[6]: len(weight) for name, weight in weights.items() if "lora_A" in name}
    assert ranks == {"q_proj": 3 if kind == "ranks" else 2, "v_proj": 2}


def test_adapters_stand_beside_each_other(base, tmp_path):
    saved(base, LoraConfig(**PLAIN), tmp_path / "a")
    said = saved(base, LoraConfig(**PLAIN | {"r": 4, "target_modules": ["k_proj"]}), tmp_path / "b")
    model = load_adapter(load_adapter(copy.deepcopy(base), tmp_path / "a"), tmp_path / "b", adapter_name="other")
    model.set_adapter("other")
    torch.testing.assert_close(logits(model), said, rtol=0, atol=1e-6)
    assert weights_fingerprint(model) == weights_fingerprint(base)


def test_training_goes_on_from_it(base, tmp_path):
    saved(base, LoraConfig(**PLAIN), tmp_path / "a")
    model = load_adapter(copy.deepcopy(base), tmp_path / "a", is_trainable=True)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all(".lora_" in name for name in trained)


def test_names_that_the_model_lacks_are_left_out(base, tmp_path):
    """As PEFT does: lists of modules for many families are common. A hundred thousand of them take no time."""
    said = saved(base, LoraConfig(**PLAIN), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["target_modules"] += ["c_attn", *(f"layers.{number}.x" for number in range(100_000))]
    settings["rank_pattern"] = {f"layers.{number}.x": 2 for number in range(50_000)}
    path.write_text(json.dumps(settings))
    torch.testing.assert_close(logits(load_adapter(copy.deepcopy(base), tmp_path / "a")), said, rtol=0, atol=1e-6)


def test_settings_of_newer_versions_that_are_off_are_passed_over(base, tmp_path):
    saved(base, LoraConfig(**PLAIN), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"next_year": None, "and_the_next": False, "more": {}}))
    assert not {"next_year", "and_the_next", "more"} & set(adapter_settings(tmp_path / "a"))
    load_adapter(copy.deepcopy(base), tmp_path / "a")


def test_a_base_weight_in_the_file_is_refused_and_changes_nothing(base, tmp_path):
    saved(base, LoraConfig(**PLAIN), tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    name = "base_model.model.model.norm.weight"
    save_file({**load_file(file), name: torch.zeros(32)}, file)
    model = copy.deepcopy(base)
    with pytest.raises(EditError, match=f"its weight '{name}' is none of an adapter on this model"):
        load_adapter(model, tmp_path / "a")
    assert weights_fingerprint(model) == weights_fingerprint(base)
    # Nothing of it stays: the model takes another adapter, and beside that refuses this one again.
    said = saved(base, LoraConfig(**PLAIN), tmp_path / "b")
    model = load_adapter(model, tmp_path / "b")
    with pytest.raises(EditError, match="is none of an adapter on this model"):
        load_adapter(model, tmp_path / "a", adapter_name="other")
    assert list(model.peft_config) == ["default"]
    torch.testing.assert_close(logits(model), said, rtol=0, atol=1e-6)


def test_a_link_into_the_cache_of_the_hub_is_none_out_of_the_folder(base, tmp_path):
    commit, blobs = tmp_path / "models--user--a" / "snapshots" / "abc", tmp_path / "models--user--a" / "blobs"
    commit.parent.mkdir(parents=True)
    said = saved(base, LoraConfig(**PLAIN), commit)
    blobs.mkdir()
    for number, file in enumerate(sorted(commit.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../../blobs/{number}")
    torch.testing.assert_close(logits(load_adapter(copy.deepcopy(base), commit)), said, rtol=0, atol=1e-6)
    (commit / "README.md").symlink_to("../../../secret")
    with pytest.raises(EditError, match=r"README\.md is a link; put the file itself there"):
        check_adapter(commit)
