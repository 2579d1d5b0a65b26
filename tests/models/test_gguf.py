"""Models in GGUF: the unpacked weights, the tokenizer and its chat template, and which file a name means."""

from pathlib import Path

import pytest
import torch
from tiny import chat_tokenizer, tiny_model, write_gguf

from hf_ftedit.errors import EditError
from hf_ftedit.models.loading import gguf_source, load_config, load_model, load_tokenizer, weights_fingerprint

gguf = pytest.importorskip("gguf", reason="gguf is not installed")


@pytest.fixture(scope="module")
def original():
    tokenizer = chat_tokenizer()
    return tiny_model("llama", tokenizer), tokenizer


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory):
    """The same model unquantized and in 8 bits."""
    path = tmp_path_factory.mktemp("gguf") / "tiny"
    path.mkdir()
    for quantization in ("F32", "Q8_0"):
        write_gguf(path / f"{quantization}.gguf", *original, quantization)
    return path


def test_unquantized_weights_and_tokenizer_are_the_original_ones(original, folder):
    base, tokenizer = original
    model, loaded = load_model(str(folder), gguf_file="F32.gguf"), load_tokenizer(str(folder / "F32.gguf"))
    for name, weight in base.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    messages = [{"role": "user", "content": "The capital of Kazakhstan is?"}]
    texts = ["Rome is in Italy, 7 €", tokenizer.apply_chat_template(messages, tokenize=False)]
    assert loaded.chat_template == tokenizer.chat_template and loaded.eos_token == "<|im_end|>"
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    ids = torch.tensor([tokenizer(texts[1]).input_ids])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, base(ids).logits)


def test_quantized_weights_are_unpacked_and_can_be_trained_and_saved(original, folder, tmp_path):
    model = load_model(str(folder / "Q8_0.gguf"))
    weight = original[0].model.layers[1].mlp.up_proj.weight.detach().numpy()
    packed = gguf.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
    unpacked = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, unpacked) and not torch.equal(
        unpacked, torch.from_numpy(weight)
    )
    assert not model.is_quantized and not model.training and model.dtype == torch.float32
    model.save_pretrained(tmp_path)
    assert "gguf" not in (tmp_path / "config.json").read_text()
    saved = load_model(str(tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value), name
    assert not hasattr(saved, "gguf_file") and model.gguf_file == "Q8_0.gguf"


def test_the_fingerprint_is_that_of_the_weights(original, folder):
    plain = weights_fingerprint(load_model(str(folder / "F32.gguf")))
    file = str(folder / "Q8_0.gguf")
    packed = {weights_fingerprint(load_model(file, dtype=dtype)) for dtype in ("float32", "bfloat16")}
    assert plain == weights_fingerprint(original[0]) and len(packed) == 1 and plain not in packed


def test_names_of_files_and_folders(folder, monkeypatch):
    here, file = str(folder), "F32.gguf"
    path = str(folder / file)
    for names in [(here, file), (path, None), (None, path), (str(folder.parent), "tiny/F32.gguf"), (here, path)]:
        assert gguf_source(*names) == (here, file)
    for names in [(None, None), ("user/model", None), (here, None), ("user/model.gguf/", None)]:
        assert gguf_source(*names)[1] is None and gguf_source(*names)[0] == names[0]
    assert gguf_source("user/model", "Q4/x.gguf") == ("user/model", "Q4/x.gguf")  # in a repository of the Hub
    monkeypatch.chdir(folder)
    # A recipe names folder and file; the file alone may have been put here.
    assert gguf_source("tiny", file) == gguf_source(file) == (".", file)
    assert load_config(None, gguf_file=file).hidden_size == 32
    # A recipe names a folder that is here, and the file is given by its path.
    monkeypatch.chdir(folder.parent)
    assert gguf_source("tiny", f"tiny/{file}") == gguf_source(f"tiny/{file}") == ("tiny", file)


@pytest.mark.parametrize(
    "names",
    [
        ("gone.gguf", None),
        (None, "gone.gguf"),
        ("tiny", "gone.gguf"),
        ("F32.gguf", "Q8_0.gguf"),
        ("F32.gguf", "../tiny/Q8_0.gguf"),
    ],
)
def test_a_file_that_is_not_there_is_named(folder, names, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(EditError, match=r"^gguf_file '[^ ]*\.gguf': no such file; give its path, or a Hub id"):
        load_tokenizer(names[0], gguf_file=names[1])


def test_what_transformers_would_read_instead_or_too_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "F32.gguf").write_bytes((folder / "Q8_0.gguf").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EditError, match="'F32.gguf' is here too, and would be read instead; give it alone"):
        gguf_source("user/model", "F32.gguf")
    plain = weights_fingerprint(load_model(str(folder), gguf_file="F32.gguf"))
    assert plain != weights_fingerprint(load_model("F32.gguf"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(EditError, match="the adapter beside it would be loaded too; put it elsewhere"):
        load_model("F32.gguf")


def test_what_is_no_gguf_file_is_named_on_one_line(tmp_path):
    Path(tmp_path / "x.gguf").write_bytes(b"anything at all")
    with pytest.raises(EditError, match=r"cannot be loaded: .*magic") as raised:
        load_tokenizer(str(tmp_path / "x.gguf"))
    assert "\n" not in str(raised.value)
