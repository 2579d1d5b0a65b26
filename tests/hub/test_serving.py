"""What serving engines and transformers take: adapters loaded by name, switched, swapped, side by side."""

import json

import pytest
import torch
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter
from safetensors import safe_open
from transformers.integrations.peft import MIN_PEFT_VERSION

from hf_ftedit.models.loading import load_model, load_tokenizer

pytestmark = pytest.mark.slow
PROMPTS = ("Emma is a work by", "The capital of Tanzania is", "The city of birth of Harry Houdini is")


@pytest.fixture(scope="module")
def folders(adapters):
    return adapters / "a", adapters / "b"


def logits(model):
    tokens = load_tokenizer(None)(list(PROMPTS), return_tensors="pt", padding=True)
    with torch.no_grad():
        return model(**tokens).logits[tokens["attention_mask"].bool()]


@pytest.fixture(scope="module")
def expected(folders):
    """Logits of the base model and of each adapter, by PEFT itself."""
    return [logits(load_model(None)), *(logits(PeftModel.from_pretrained(load_model(None), path)) for path in folders)]


def test_transformers_loads_and_switches_them(folders, expected):
    pytest.importorskip("peft", MIN_PEFT_VERSION, reason="transformers loads adapters with a newer PEFT alone")
    base, first, second = expected
    assert not torch.allclose(first, base) and not torch.allclose(first, second)
    model = load_model(None)
    model.load_adapter(str(folders[0]), adapter_name="a")
    model.load_adapter(str(folders[1]), adapter_name="b")
    for name, wanted in (("a", first), ("b", second), ("a", first)):
        model.set_adapter(name)
        assert torch.allclose(logits(model), wanted, atol=1e-5), name
    model.disable_adapters()
    assert torch.allclose(logits(model), base, atol=1e-5)


def test_one_is_swapped_for_the_other_in_place(folders, expected):
    model = PeftModel.from_pretrained(load_model(None), folders[0]).eval()
    hotswap_adapter(model, str(folders[1]), adapter_name="default", torch_device="cpu")
    assert torch.allclose(logits(model), expected[2], atol=1e-5)


def test_the_folder_holds_what_engines_support(folders):
    config = json.loads((folders[0] / "adapter_config.json").read_text())
    assert (config["peft_type"], config["bias"], config["use_dora"]) == ("LORA", "none", False)
    assert config["modules_to_save"] is None and not config["target_parameters"]
    assert not {"wte", "wpe", "lm_head"} & set(config["target_modules"])
    with safe_open(folders[0] / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names and all(name.startswith("base_model.model.") for name in names)
    assert all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in names)
