"""The LoRA that an edit trains: the paper's settings, and what each model's layers need."""

import re

import pytest
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny import bpe_tokenizer, seeing_model, tiny_model
from trl import get_peft_config

from hf_ftedit import EditConfig, EditError, EditModelConfig
from hf_ftedit.training.lora import adapter_for, fit_lora


@pytest.fixture(scope="module")
def tokenizer():
    return bpe_tokenizer()


def adapted(model, config):
    """Names of the modules that got a LoRA, without PEFT's wrapping."""
    names = (name for name, _ in get_peft_model(model, config).named_modules())
    found = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in names if ".lora_" in name}
    return sorted(found)


def test_default_is_the_papers():
    config = get_peft_config(EditModelConfig())
    assert (config.r, config.lora_alpha, config.lora_dropout) == (32, 64, 0.05)
    assert config.target_modules == "all-linear" and config.task_type == "CAUSAL_LM"


@pytest.mark.parametrize("targets", [["c_attn"], "c_attn", r".*\.c_attn"])
def test_the_embedding_comes_to_the_modules_that_were_asked_for(tokenizer, targets):
    model = tiny_model("gpt2", tokenizer)
    config = fit_lora(LoraConfig(r=2, target_modules=targets), model, embedding=True)
    expected = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn", "transformer.wte"]
    assert adapted(model, config) == expected


def test_the_given_configuration_stays_as_it_was(tokenizer):
    given = LoraConfig(r=2, target_modules=["c_attn"])
    fit_lora(given, tiny_model("gpt2", tokenizer), embedding=True)
    assert given.target_modules == {"c_attn"} and given.fan_in_fan_out is False


def test_other_adapters_and_none_pass_through(tokenizer):
    model = tiny_model("llama", tokenizer)
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert fit_lora(prompt, model) is prompt and fit_lora(None, model) is None


@pytest.mark.parametrize(
    "family, target, reason",
    [
        ("mamba", "out_proj", "backbone.layers.0.mixer.out_proj, whose weight the model reads without running it"),
        ("mamba", "conv1d", "a convolution"),
        ("falcon_h1", "conv1d", "a convolution"),
        ("jamba", "dt_proj", "whose weight the model reads without running it"),
        ("qwen3_next", r".*conv1d", "a convolution"),
        ("llama4_text", "router", "feed_forward.router, a router of experts"),
        ("mixtral", "gate", "which PEFT takes for a weight of experts or their router in such a model"),
        ("deepseek_v3", "down_proj", "which PEFT takes for a weight of experts or their router in such a model"),
        ("llama", "lm_head", "the output head"),
    ],
)
def test_a_layer_that_can_take_none_is_named_where_it_is_asked_for(tokenizer, family, target, reason):
    model = tiny_model(family, tokenizer)
    with pytest.raises(EditError, match=f"lora_target_modules: .* names .*{reason}; leave it out"):
        fit_lora(LoraConfig(target_modules=target if "*" in target else [target]), model)


def test_a_router_is_adapted_only_where_it_is_asked_for(tokenizer):
    gate = "model.layers.0.mlp.shared_expert_gate"
    by_default = adapted(model := tiny_model("qwen3_next", tokenizer), fit_lora(LoraConfig(r=2), model))
    assert by_default and gate not in by_default
    model = tiny_model("qwen3_next", tokenizer)
    asked = adapted(model, fit_lora(LoraConfig(r=2, target_modules=["shared_expert_gate"]), model))
    assert asked == [gate, gate.replace("0", "1")]
    model = tiny_model("mixtral", tokenizer)
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["gate.weight"])
    assert "model.layers.0.mlp.gate" in adapted(model, fit_lora(config, model))


@pytest.mark.parametrize("family", ["mamba", "mixtral", "gpt2", "qwen3_next"])
def test_without_targets_it_is_those_of_peft_or_all_that_are_fit(tokenizer, family):
    model = tiny_model(family, tokenizer)
    found = {name.rpartition(".")[2] for name in adapted(model, fit_lora(LoraConfig(r=2), model))}
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    expected = {"mamba": {"in_proj"}, "mixtral": attention, "gpt2": {"c_attn"}}
    assert found == expected.get(family, attention | {"in_proj_qkvz", "in_proj_ba", "out_proj"})


def test_layers_of_a_model_with_unfit_ones(tokenizer):
    model = tiny_model("falcon_h1", tokenizer)
    names = adapted(model, fit_lora(LoraConfig(r=2, target_modules="all-linear"), model, layers=[1]))
    assert names and all(".1." in name and "out_proj" not in name for name in names)


ATTENTION = {f"self_attn.{name}_proj" for name in "qkvo"}
MLP = {f"mlp.{name}_proj" for name in ("gate", "up", "down")}


@pytest.mark.parametrize(
    "targets, expected",
    [
        ("all-linear", ATTENTION | MLP),
        (None, ATTENTION | MLP),
        (["mlp"], MLP),
        (["q_proj"], {"self_attn.q_proj"}),
        (r".*\.[qk]_proj", {"self_attn.q_proj", "self_attn.k_proj"}),
    ],
)
def test_the_tower_for_images_which_no_text_runs_through_gets_no_lora(tokenizer, targets, expected):
    model = seeing_model(tokenizer)
    names = adapted(model, fit_lora(LoraConfig(r=2, target_modules=targets), model))
    assert names == sorted(f"model.language_model.layers.{layer}.{name}" for layer in (0, 1) for name in expected)
    with pytest.raises(
        EditError, match="lora_target_modules: the model has no module 'fc1'; its linear ones are down"
    ):
        fit_lora(LoraConfig(target_modules=["fc1"]), seeing_model(tokenizer))


def test_experts_that_the_model_lacks_are_told_with_those_it_has(tokenizer):
    model = tiny_model("mixtral", tokenizer)
    has = "its experts are mlp.experts.down_proj, mlp.experts.gate_up_proj: name them as lora_target_parameters"
    with pytest.raises(EditError, match=f"no module 'w1'.*; {has}"):
        fit_lora(LoraConfig(target_modules=["w1", "w2"]), model)
    with pytest.raises(EditError, match=f"no weight 'experts.w1'; {has}"):
        fit_lora(LoraConfig(target_parameters=["experts.w1"]), model)


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["nrom"]},
        {"modules_to_save": ["orm"]},  # PEFT would take it for the end of "norm", and not find it when loading
        {"exclude_modules": ["k_porj"]},
        {"exclude_modules": r".*\.k_porj"},
        {"rank_pattern": {"q_porj": 4}},
        {"alpha_pattern": {"q_porj": 4}},
    ],
)
def test_names_that_the_model_lacks_are_told(tokenizer, settings):
    model, (name, value) = tiny_model("llama", tokenizer), *settings.items()
    wrong = value if isinstance(value, str) else next(iter(value))
    with pytest.raises(
        EditError, match=f"^{name} of the adapter: the model has no module {re.escape(repr(wrong))}; .*norm"
    ):
        adapter_for(model, EditConfig(use_cpu=True), LoraConfig(r=2, target_modules=["q_proj"], **settings))


def test_what_trains_nothing_and_what_is_no_configuration_is_told(tokenizer):
    args = EditConfig(use_cpu=True)
    with pytest.raises(EditError, match="no weight to train.*inference_mode=False"):
        adapter_for(tiny_model("llama", tokenizer), args, LoraConfig(target_modules=["q_proj"], inference_mode=True))
    model = get_peft_model(tiny_model("llama", tokenizer), LoraConfig(target_modules=["q_proj"]))
    model.merge_adapter()
    with pytest.raises(EditError, match="no weight to train: .*merged"):
        adapter_for(model, args, None)
    with pytest.raises(EditError, match="peft_config is of type dict: give a configuration of peft"):
        adapter_for(tiny_model("llama", tokenizer), args, {"r": 2})


def test_all_weights_and_an_adapter_are_not_trained_at_once(tokenizer):
    args, model, config = EditConfig(use_cpu=True, full_finetune=True), tiny_model("llama", tokenizer), LoraConfig(r=2)
    assert adapter_for(model, args, None) is None
    for given in ((model, args, config), (get_peft_model(model, config), args, None)):
        with pytest.raises(EditError, match="full_finetune trains no adapter, and one is given; leave one of the two"):
            adapter_for(*given)


def test_names_that_it_has_pass_and_a_pattern_that_is_none_is_told(tokenizer):
    model, args = tiny_model("llama", tokenizer), EditConfig(use_cpu=True)
    more = {"rank_pattern": {"layers.0.self_attn.q_proj": 4, r"1\..*v_proj": 1}, "exclude_modules": ["k_proj"]}
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["input_layernorm"], **more)
    assert adapter_for(model, args, config).rank_pattern == more["rank_pattern"]
    with pytest.raises(EditError, match="correct the pattern, or give names"):
        adapter_for(model, args, LoraConfig(r=2, target_modules="((q_proj"))
