"""Editing in few bits, on the CPU: trained, measured, saved, and measured again from what was saved."""

import json

import pytest
import torch
import yaml
from transformers import BitsAndBytesConfig

from hf_ftedit import EditError, EditTrainer, load_model, merge, verify
from hf_ftedit.cli.app import main

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
pytestmark = pytest.mark.filterwarnings("error:.*autograd kernel was not registered")

BITS = {
    "int8": ["--load_in_8bit"],
    "nf4, constants quantized too, paged optimizer": [
        *("--load_in_4bit", "--use_bnb_nested_quant", "--optim", "paged_adamw_8bit")
    ],
}


@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
def test_edits_are_learnt_in_few_bits_and_measured_the_same_from_the_folder(bits, tmp_path):
    folder = tmp_path / "edited"
    settings = ["--max_edits", "3", "--num_paraphrases", "5", "--num_locality", "10", "--report_to", "none"]
    settings += ["--num_train_epochs", "5", "--per_device_train_batch_size", "8", "--text_loss_weight", "0"]
    assert main(["train", *bits, *settings, "--output_dir", str(folder)]) == 0
    results = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    assert results["before"]["efficacy"] == 0 and results["before"]["locality"] >= 90
    assert results["after"]["efficacy"] >= 90 and results["after"]["locality"] >= 60
    recipe = yaml.safe_load((folder / "edit_config.yaml").read_text(encoding="utf-8"))
    assert recipe["load_in_4bit"] != recipe["load_in_8bit"]
    assert "bits = BitsAndBytesConfig(" in (folder / "README.md").read_text(encoding="utf-8")
    assert verify(str(folder)).passed
    # Merged into its base model it is in full precision, and is measured so again.
    saved = merge([str(folder)], tmp_path / "whole", merge_into_base=True)
    assert not {"load_in_4bit", "load_in_8bit"} & saved.recipe.keys()
    assert "BitsAndBytesConfig" not in (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert verify(str(tmp_path / "whole"), tolerance=1e-6).passed


NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
TOKENS = torch.arange(12)[None]


def test_the_device_map_of_the_user_holds_for_a_quantized_model_too():
    model = load_model(None, quantization_config=NF4, device_map={"": "meta"})
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def gradient(model):
    inputs = model.get_input_embeddings()(TOKENS).detach().requires_grad_()
    model(inputs_embeds=inputs, labels=TOKENS).loss.backward()
    return inputs.grad


def test_gradients_go_through_layers_that_were_asked_before():
    asked, fresh = (load_model(None, quantization_config=NF4).eval() for _ in range(2))
    with torch.no_grad():
        asked(TOKENS)
    assert torch.equal(gradient(asked), gradient(fresh))


def test_a_model_that_is_packed_for_inference_is_refused():
    model = load_model(None, quantization_config=NF4)
    layer = next(module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu"))
    layer.support_avx512bf16_for_cpu = layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(EditError, match="load it again"):
        EditTrainer(model=model, train_dataset=[{"prompt": "Rome is in", "target_new": "Peru"}])
