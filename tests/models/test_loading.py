"""Loading by name or folder: safetensors only, errors that name the cause, the embedded model by its name."""

import json
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, logits, saved, tiny_model
from transformers import AutoModelForCausalLM
from transformers.utils.import_utils import is_gguf_available

from hf_ftedit.errors import EditError
from hf_ftedit.models.adapters import check_adapter, load_adapter
from hf_ftedit.models.loading import (
    EMBEDDED_NAME,
    asset,
    load_config,
    load_model,
    load_tokenizer,
    model_source,
    unedited,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny GPT-2 with its tokenizer."""
    tokenizer = bpe_tokenizer()
    return Path(saved(tmp_path_factory.mktemp("models") / "tiny", tiny_model("gpt2", tokenizer), tokenizer))


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "tiny"
    config = LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    get_peft_model(load_model(str(folder)), config).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", [None, EMBEDDED_NAME])
def test_the_embedded_model_has_a_name(name):
    assert model_source(name) == asset("model")
    assert model_source("user/model") == "user/model"
    model, tokenizer = load_model(name), load_tokenizer(name)
    assert not model.training and model.dtype == torch.float32
    assert load_config(name).vocab_size == model.config.vocab_size >= len(tokenizer)


def test_a_folder_and_its_precision(folder):
    assert load_model(str(folder)).dtype == torch.float32
    assert load_model(str(folder), dtype="bfloat16").dtype == torch.bfloat16
    assert len(load_tokenizer(str(folder))) == load_config(str(folder)).vocab_size


@pytest.mark.parametrize("load", [load_config, load_tokenizer, load_model])
@pytest.mark.parametrize("name", ["/gone", "gone/", "../gone", "a/b/c", "https://host/user/model"])
def test_what_is_no_folder_and_no_hub_id_is_said(load, name):
    with pytest.raises(EditError) as raised:
        load(name)
    assert str(raised.value) == f"model_name_or_path {name!r}: no such folder; check the path, or give a Hub id"


def test_a_folder_that_a_recipe_knows_by_its_name_alone_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        EditError, match="^model_name_or_path 'my-model' cannot be loaded: .*; if it is a folder els.* path$"
    ):
        load_config("my-model")


def test_a_folder_without_a_model_is_named_on_one_line(tmp_path):
    with pytest.raises(EditError, match="cannot be loaded") as raised:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_pickled_weights_are_not_read(folder, tmp_path):
    model = load_model(str(folder))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(EditError, match=r"cannot be loaded: .*safetensors"):
        load_model(str(tmp_path))


def test_gguf_without_its_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    key, value = b"general.architecture", b"llama"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)  # no tensor, one entry
    for load in (load_tokenizer, load_config, load_model):
        with pytest.raises(EditError, match=r"^gguf_file needs the package gguf; .* pip install 'hf-ftedit\[gguf\]'$"):
            load(str(tmp_path / "x.gguf"))
    is_gguf_available.cache_clear()  # transformers would remember that the package is missing


def test_a_model_without_an_adapter_is_unedited_as_it_is(folder):
    model = load_model(str(folder))
    before = logits(model)
    with unedited(model):
        assert torch.equal(logits(model), before)


def test_an_adapter_is_no_model(adapter):
    """transformers would load it without a look, and its base model from wherever it says."""
    for load in (load_model, load_tokenizer):
        with pytest.raises(EditError, match="it is an adapter, or holds one; give its base model"):
            load(str(adapter))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("n_embd", 0), ("n_embd", "32"), ("n_embd", 16), ("n_head", 0), ("n_layer", None), ("vocab_size", -1)),
        *(("model_type", "none"), ("model_type", 5), ("activation_function", "none"), ("quantization_config", "x")),
        *(("architectures", 5), ("dtype", "float7"), ("auto_map", {"AutoModelForCausalLM": "evil.Model"})),
    ],
)
def test_settings_that_anybody_wrote_are_one_line(folder, tmp_path, setting, value):
    shutil.copytree(folder, tmp_path / "theirs")
    file = tmp_path / "theirs" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    try:
        assert logits(load_model(str(file.parent))).shape == (1, 8, len(bpe_tokenizer()))  # harmless, or refused
    except EditError as error:
        assert str(error).isprintable() and "cannot be loaded: " in str(error)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/dev/zero", "/proc/kmsg"])
def test_weights_are_read_from_the_folder_alone(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": name}}
    (tmp_path / "theirs" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EditError, match="index.json names a file that is not in its folder"):
        load_model(str(tmp_path / "theirs"))


def test_an_adapter_saved_as_a_pickle_is_refused(folder, adapter, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"anything")
    for check in (check_adapter, lambda name: load_adapter(load_model(str(folder)), name)):
        with pytest.raises(EditError, match=r"has no adapter_model\.safetensors; .* pickled weights can run code"):
            check(str(tmp_path))


def test_a_whole_model_is_no_adapter(folder):
    with pytest.raises(
        EditError, match=r"holds a whole model and no adapter; edit or measure it as any other, by its"
    ):
        check_adapter(folder)


def test_a_broken_adapter_is_named(adapter, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    with pytest.raises(EditError, match=r"adapter_config\.json is missing"):
        check_adapter(str(tmp_path))
    with pytest.raises(
        EditError, match=r"adapter 'gone' has no adapter_model\.safetensors; give the folder or Hub id"
    ):
        check_adapter("gone")
    check_adapter(str(adapter))


def test_an_adapter_of_another_model_is_told_so(folder, adapter, tmp_path):
    other = tiny_model("gpt2", bpe_tokenizer()).config
    other.n_embd = 64
    for model in (AutoModelForCausalLM.from_config(other), tiny_model("llama", bpe_tokenizer())):
        with pytest.raises(EditError, match=r"^adapter '.*' (does not fit this model|cannot be loaded)"):
            load_adapter(model, str(adapter))


def test_truncated_weights_are_named(folder, adapter, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:100])
    with pytest.raises(EditError, match="^adapter .* cannot be loaded: .*invalid header length"):
        load_adapter(load_model(str(folder)), str(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    load_config(str(folder)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(EditError, match="^model_name_or_path .* cannot be loaded: .*header"):
        load_model(str(tmp_path))
