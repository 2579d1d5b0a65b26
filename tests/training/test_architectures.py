"""Every architecture with a fitting tokenizer: edits are trained, measured, saved, and loaded by PEFT alone."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from tiny import MIXED, bos_tokenizer, bpe_tokenizer, chat_tokenizer, logits, paired, tiny_model
from tiny_edits import EDITS, config, fitted, history, outspoken
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_ftedit import EditError
from hf_ftedit.data.readers import read_edits
from hf_ftedit.hub.folder import ADAPTER_FILES
from hf_ftedit.models.adapters import merged

FITTING = [
    ("gpt2", bpe_tokenizer),
    ("gptj", bpe_tokenizer),
    ("opt", bos_tokenizer),
    ("llama", bos_tokenizer),
    ("qwen3", chat_tokenizer),
    ("gemma", bos_tokenizer),
]


def edited(base, tokenizer, folder, peft_config=None, **settings):
    """A trainer that has edited a copy of `base`, measured it and written `folder`."""
    args = config(folder, max_steps=12, num_locality=1, **settings)
    trainer = fitted(outspoken(base), tokenizer, args, peft_config=peft_config)
    trainer.save_model()
    losses = history(trainer, "loss")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3]), losses
    return trainer


def assert_reloads(trainer, base, folder):
    """PEFT alone makes the edited model from the base and the folder, and so does merging; the modules with a LoRA."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(ADAPTER_FILES)
    again = PeftModel.from_pretrained(copy.deepcopy(base), folder)
    ours = logits(trainer.model)
    torch.testing.assert_close(logits(again), ours, rtol=0, atol=1e-6)
    assert (logits(base) - ours).abs().max() > 0.01
    torch.testing.assert_close(logits(merged(trainer.model)), ours, rtol=0, atol=1e-4)
    weights = load_file(folder / "adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    return {name.split(".lora_")[0].removeprefix("base_model.model.") for name in weights}


@pytest.mark.parametrize(("family", "make_tokenizer"), FITTING)
def test_an_edit_from_end_to_end(family, make_tokenizer, tmp_path, recwarn):
    base, tokenizer = paired(tiny_model, family, make_tokenizer)
    trainer = edited(base, tokenizer, tmp_path / "adapter")
    assert not [warning for warning in recwarn if "fan_in_fan_out" in str(warning.message)]
    layers = assert_reloads(trainer, base, tmp_path / "adapter")
    results = json.loads((tmp_path / "adapter" / "eval_results.json").read_text())
    assert results["n_edits"] == 3 and results["after"]["n_probes"]["rewrite"] == 3
    for name in ("efficacy", "generalization", "locality"):
        assert 0 <= results["after"][name] <= 100
    accuracy = [results[when]["accuracy"]["efficacy"] for when in ("before", "after")]
    assert accuracy[0] < accuracy[1]
    assert read_edits(str(tmp_path / "adapter" / "edits.jsonl")) == read_edits(EDITS)
    others = {name: module for name, module in base.named_modules() if module is not base.get_output_embeddings()}
    linear = {name for name, module in others.items() if type(module).__name__ in ("Linear", "Conv1D")}
    assert layers == linear  # attention and MLP, and neither the head nor the embeddings


# Of each family, the last parts of the names of the modules that get a LoRA by default.
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
ADAPTED = dict.fromkeys(MIXED, ATTENTION) | {
    "deepseek_v3": {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    "jamba": {*ATTENTION, *MLP, "in_proj", "x_proj", "out_proj"},
    "qwen3_next": {*ATTENTION, "in_proj_qkvz", "in_proj_ba", "out_proj"},
    "llama4_text": {*ATTENTION, *MLP},
    "mamba": {"in_proj"},
    "mamba2": {"in_proj"},
    "falcon_h1": {*ATTENTION, *MLP, "in_proj"},
}


@pytest.mark.parametrize("family", MIXED)
def test_experts_and_state_spaces_from_end_to_end(family, tmp_path, caplog):
    base, tokenizer = paired(tiny_model, family)
    trainer = edited(base, tokenizer, tmp_path / "adapter")
    names = assert_reloads(trainer, base, tmp_path / "adapter")
    assert {name.rpartition(".")[2] for name in names} == ADAPTED[family]
    experts = [name for name, _ in base.named_parameters() if ".experts.down_proj" in name]
    assert ("the experts stay frozen" in caplog.text) is bool(experts)
    assert not trainer.aux_loss_enabled


def test_experts_are_trained_when_asked(tmp_path, caplog):
    base, tokenizer = paired(tiny_model, "mixtral")
    experts = ["experts.gate_up_proj", "experts.down_proj"]
    lora = LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj"], target_parameters=experts)
    trainer = edited(base, tokenizer, tmp_path / "adapter", lora, router_aux_loss_coef=0.01)
    assert trainer.aux_loss_enabled  # asked for too
    names = assert_reloads(trainer, base, tmp_path / "adapter")
    ends = {name.partition(".layers.0.")[2] for name in names} - {""}
    assert ends == {"self_attn.q_proj", "mlp.experts", "mlp.experts.base_layer"}
    assert "lora_dropout is off" in caplog.text and "frozen" not in caplog.text
    assert "lora_target_parameters:\n- experts.down_proj\n" in (tmp_path / "adapter" / "edit_config.yaml").read_text()


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_next"])
def test_shared_experts_are_trained_by_the_names_of_their_weights(family, tmp_path, caplog):
    """PEFT takes the names of these modules for those of experts, so that they cannot be named as modules."""
    base, tokenizer = paired(tiny_model, family)
    shared = "shared_experts" if family == "deepseek_v3" else "shared_expert"
    weights = [f"{shared}.{name}.weight" for name in ("down_proj", "gate_proj", "up_proj")]
    module = LoraConfig(r=4, target_modules=["up_proj"])
    with pytest.raises(EditError, match=f"{weights[0]}, {weights[1]}, {weights[2]}.*: name them as lora_target_param"):
        edited(base, tokenizer, tmp_path / "adapter", module)
    lora = LoraConfig(r=4, target_modules=["o_proj"], target_parameters=weights)
    trainer = edited(base, tokenizer, tmp_path / "adapter", lora)
    frozen = caplog.text.partition("the experts stay frozen (")[2].partition(")")[0].split(", ")
    assert "mlp.experts.gate_up_proj" in frozen and weights[0] not in frozen
    names = assert_reloads(trainer, base, tmp_path / "adapter")
    assert {f"{name.partition('.mlp.')[2]}.weight" for name in names if ".mlp." in name} == set(weights)


@pytest.mark.parametrize(("family", "embedding"), [("gpt2", "wte"), ("llama", "embed_tokens")])
def test_the_token_embedding_gets_a_lora_when_asked(family, embedding, tmp_path):
    base, tokenizer = paired(tiny_model, family)
    trainer = edited(base, tokenizer, tmp_path / "adapter", lora_embedding=True)
    assert_reloads(trainer, base, tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    found = {name.rsplit(".", 1)[-1] for name in weights if embedding in name}
    assert found == {"lora_embedding_A", "lora_embedding_B"}  # the embedding itself is not copied
    assert len(weights) > 2


NO_MODULE = "the model has no module 'c_attn'; its linear ones are down_proj, .*q_proj"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"lora_layers": [7]}, r"lora_layers is \[7\]: give numbers from 0 to 1"),
        ({"lora_layers": [-1]}, "give numbers from 0"),
        ({"lora_layers": []}, "give numbers from 0"),
        ({"lora_layers": [0], "lora_embedding": True}, "do not go together"),
        ({"peft_config": LoraConfig(target_modules=["q_proj", "c_attn"])}, NO_MODULE),
        ({"peft_config": LoraConfig(target_modules="c_attn")}, NO_MODULE),
    ],
)
def test_layers_and_modules_that_cannot_be_are_told(settings, message, tmp_path):
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match=message):
        edited(tiny_model("llama", tokenizer), tokenizer, tmp_path / "adapter", **settings)


def test_all_weights_are_trained_when_asked(tmp_path):
    base, tokenizer = paired(tiny_model, "gpt2")
    folder = tmp_path / "model"
    trainer = edited(base, tokenizer, folder, full_finetune=True)
    assert not hasattr(trainer.model, "peft_config")
    names = {path.name for path in folder.iterdir()}
    assert set(ADAPTER_FILES[2:]) | {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not {"adapter_model.safetensors", "training_args.bin"} & names
    assert AutoTokenizer.from_pretrained(folder)(EDITS[0]["prompt"]) == tokenizer(EDITS[0]["prompt"])
    ours = logits(trainer.model)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder)), ours, rtol=0, atol=1e-6)
    assert (logits(base) - ours).abs().max() > 0.01
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["before"]["accuracy"]["efficacy"] < results["after"]["accuracy"]["efficacy"]
    assert "use_peft: false" in (folder / "edit_config.yaml").read_text()
