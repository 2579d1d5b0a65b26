"""Exported models and adapters: the same logits when read back, weights in llama.cpp's order, clear refusals."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, chat_tokenizer, moved, sentencepiece_tokenizer, tiny_model, write_gguf
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_ftedit import EditError, EditOptions, export
from hf_ftedit.cli.app import main
from hf_ftedit.evaluation import EvaluatedModel
from hf_ftedit.models.adapters import merged
from hf_ftedit.models.loading import load_model, load_tokenizer
from hf_ftedit.sharing.modelfile import modelfile

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
files = pytest.importorskip("hf_ftedit.sharing.gguf_files")
TEXT = "The capital of Kazakhstan is Astana, 12 €<|im_end|>\n"


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


def scattered(family, tokenizer, context=256):
    """A model of which no two weights are alike; norms and biases too."""
    model = tiny_model(family, tokenizer, context)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


def model_file(model, tokenizer, base, dtype, **options):
    return files.ModelFile(EvaluatedModel(model, tokenizer, EditOptions(**options)), base, dtype)


def logits(model, tokenizer):
    with torch.no_grad():
        return model(torch.tensor([tokenizer(TEXT).input_ids])).logits


def tensors(path):
    return {each.name: each for each in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("family", "context"), [("llama", 256), ("qwen2", 256), ("gpt2", 1024)])
def test_a_whole_model_is_read_back_with_its_tokenizer(family, context, tokenizer, tmp_path):
    model = merged(moved(scattered(family, tokenizer, context)))
    expected, path = logits(model, tokenizer), tmp_path / "model.gguf"
    model_file(model, tokenizer, None, "f16", chat_template=True).write(path, model)
    read, words = load_model(str(path)), load_tokenizer(str(path))
    torch.testing.assert_close(logits(read, words), expected, atol=0.01, rtol=0)
    assert words(TEXT).input_ids == tokenizer(TEXT).input_ids and words.chat_template == tokenizer.chat_template
    fields = gguf.GGUFReader(path).fields
    ends = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot")]
    assert ends == [tokenizer.convert_tokens_to_ids("<|im_end|>")] * 2
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 3}}, {"lora_alpha": 5}])
def test_a_lora_has_names_order_and_scale_of_llama_cpp(settings, tokenizer, tmp_path):
    model = scattered("llama", tokenizer)
    write_gguf(tmp_path / "base.gguf", model, tokenizer)  # the tests' own conversion
    torch.manual_seed(2)
    model = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False, **settings))
    files.write_lora(tmp_path / "lora.gguf", model.eval())
    write_gguf(tmp_path / "merged.gguf", merged(model), tokenizer)
    lora = gguf.GGUFReader(tmp_path / "lora.gguf")
    kinds = [lora.fields[name].contents() for name in ("general.type", "adapter.type", "general.architecture")]
    alpha = lora.fields["adapter.lora.alpha"].contents()
    assert kinds == ["adapter", "lora", "llama"] and alpha == settings.get("lora_alpha", 8)
    pairs, base = {each.name: each.data for each in lora.tensors}, tensors(tmp_path / "base.gguf")
    assert len(pairs) == 2 * 7 * 2
    for name, after in tensors(tmp_path / "merged.gguf").items():
        expected = base[name].data
        if f"{name}.lora_a" in pairs:
            first, second = pairs[f"{name}.lora_a"], pairs[f"{name}.lora_b"]
            expected = expected + alpha / len(first) * second @ first  # as llama.cpp adds it
        assert abs(after.data - expected).max() < 1e-5, name
    # And as transformers reads the sum.
    files.write_with_lora(tmp_path / "sum.gguf", tmp_path / "base.gguf", tmp_path / "lora.gguf")
    read = load_model(str(tmp_path / "sum.gguf"))
    whole = load_model(str(tmp_path / "merged.gguf"))
    torch.testing.assert_close(logits(read, tokenizer), logits(whole, tokenizer), atol=1e-4, rtol=0)


def test_a_file_of_the_base_model_keeps_what_no_edit_changed(tokenizer, tmp_path):
    write_gguf(tmp_path / "base.gguf", scattered("llama", tokenizer), tokenizer, "Q4_1")
    model = load_model(str(tmp_path / "base.gguf"))
    model = get_peft_model(model, LoraConfig(target_modules=["up_proj"], init_lora_weights=False)).eval()
    expected = logits(model, tokenizer)
    whole = model_file(model.get_base_model(), bpe_tokenizer(), tmp_path / "base.gguf", "q8_0")
    whole.write(tmp_path / "model.gguf", merged(model))
    before, after = tensors(tmp_path / "base.gguf"), tensors(tmp_path / "model.gguf")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        is_edited = "ffn_up" in name
        assert after[name].tensor_type.name == ("Q8_0" if is_edited else tensor.tensor_type.name), name
        assert is_edited or (after[name].data == tensor.data).all()
    torch.testing.assert_close(
        logits(load_model(str(tmp_path / "model.gguf")), tokenizer), expected, atol=0.05, rtol=0
    )
    old, new = (gguf.GGUFReader(tmp_path / name).fields for name in ("base.gguf", "model.gguf"))
    kept = [name for name in old if not name.startswith("GGUF.")]
    assert all(new[name].contents() == old[name].contents() for name in kept)
    assert new["tokenizer.chat_template"].contents() == tokenizer.chat_template  # of the file


def test_what_is_no_file_of_the_base_model_is_refused(tokenizer, tmp_path):
    write_gguf(tmp_path / "base.gguf", scattered("llama", tokenizer), tokenizer)
    other = tiny_model("llama", tokenizer)
    with pytest.raises(EditError, match=r"base.gguf': its token_embd.weight is not that of the base model"):
        model_file(other, tokenizer, tmp_path / "base.gguf", "f16").write(tmp_path / "x.gguf", other)
    with pytest.raises(EditError, match="its architecture is 'llama', and that of the base model 'qwen2'"):
        model_file(tiny_model("qwen2", tokenizer), tokenizer, tmp_path / "base.gguf", "f16")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "base.gguf").read_bytes()[:1000])
    (tmp_path / "text.gguf").write_text("no GGUF at all")
    writer = gguf.GGUFWriter(tmp_path / "bare.gguf", "llama")
    writer.kv_data[0].clear()  # not even the architecture
    writer.add_string("general.name", "a model")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        write()
    for name in ("cut.gguf", "text.gguf", "bare.gguf"):
        with pytest.raises(EditError, match=f"{name}': it is damaged or no GGUF file .*; give another file"):
            model_file(other, tokenizer, tmp_path / name, "f16")


def test_a_lora_is_put_on_no_file_of_another_model(tokenizer, tmp_path):
    """The exam's report says so; the LoRA itself is written by then."""
    files.write_lora(tmp_path / "lora.gguf", moved(tiny_model("llama", tokenizer)))
    wide = {"hidden_size": 64, "intermediate_size": 128}
    write_gguf(tmp_path / "wide.gguf", tiny_model("llama", tokenizer, **wide), tokenizer)
    model_file(model := tiny_model("qwen2", tokenizer), tokenizer, None, "f16").write(tmp_path / "qwen.gguf", model)
    for name, problem in {
        "wide": "its .*weight is not that of the base model",
        "qwen": "is 'qwen2', and that",
    }.items():
        with pytest.raises(EditError, match=f"{name}.gguf': .*{problem}"):
            files.write_with_lora(tmp_path / "sum.gguf", tmp_path / f"{name}.gguf", tmp_path / "lora.gguf")


def test_an_edited_embedding_leaves_the_output_head(tokenizer, tmp_path):
    model = scattered("llama", tokenizer)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    settings = LoraConfig(target_modules=["embed_tokens", "o_proj"], init_lora_weights=False)
    model = get_peft_model(model, settings).eval()
    with pytest.raises(EditError, match=r"changes model.embed_tokens, which llama.cpp does not load .*--to gguf"):
        files.write_lora(tmp_path / "lora.gguf", model)
    expected, model = logits(model, tokenizer), merged(model)
    model_file(model, tokenizer, None, "f16").write(tmp_path / "model.gguf", model)
    read = load_model(str(tmp_path / "model.gguf"))
    assert "output.weight" in tensors(tmp_path / "model.gguf")
    torch.testing.assert_close(logits(read, tokenizer), expected, atol=0.01, rtol=0)


def test_what_llama_cpp_would_run_otherwise_is_refused(tokenizer):
    model = tiny_model("llama", tokenizer)
    with pytest.raises(EditError, match=r"tokenizer .* is not written as GGUF; export --to merged, and convert"):
        model_file(model, sentencepiece_tokenizer(), None, "f16")
    model.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 1e4}
    with pytest.raises(EditError, match="rope_parameters .*llama3.* is not written as GGUF"):
        model_file(model, tokenizer, None, "f16")
    with pytest.raises(EditError, match="architecture 'opt' are not written as GGUF, those of llama"):
        model_file(tiny_model("opt", tokenizer), tokenizer, None, "f16")


@pytest.mark.parametrize(
    ("steps", "ignores_merges", "name"),
    [
        ([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)], False, "smollm"),
        ([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)], False, None),
        ([pre_tokenizers.ByteLevel()], False, None),  # with a space in front
        *(
            ([pre_tokenizers.Split(Regex(text), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)], *rest)
            for text, *rest in [
                *((text, name == "llama-bpe", name) for text, name in files.SPLITS.items()),
                (r"\p{L}+", False, None),
            ]
        ),
    ],
)
def test_tokenizers_are_told_by_how_they_cut_words(steps, ignores_merges, name):
    tokenizer = bpe_tokenizer().backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.model.ignore_merges = ignores_merges
    assert files._splits(json.loads(tokenizer.to_str())) == name


LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}<|sep|>\n\n{{ message.content }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|sep|>\n\n{% endif %}"
)
CHATML = chat_tokenizer().chat_template
GREETING = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            GREETING + CHATML,
            'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}'
            "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ end }}{{ .Response }}"
            '<|im_end|>\n"""\nSYSTEM """You are kind."""\n',
        ),
        (
            LLAMA3,
            'TEMPLATE """{{ if .System }}<|im_start|>system<|sep|>\n\n{{ .System }}<|im_end|>{{ end }}{{ if .Prompt }}'
            "<|im_start|>user<|sep|>\n\n{{ .Prompt }}<|im_end|><|im_start|>assistant<|sep|>\n\n{{ end }}"
            '{{ .Response }}<|im_end|>"""\n',
        ),
        # The system message inside the user's turn has no such form.
        (CHATML.replace("message.content", "messages[0].content + message.content"), ""),
    ],
)
def test_a_modelfile_has_the_chat_template(template, expected):
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    tokenizer.bos_token = "<|endoftext|>" if "bos_token" in template else "<|im_start|>"  # the latter as SmolLM's
    head = 'FROM ./model.gguf\nPARAMETER temperature 0\nPARAMETER stop "<|im_end|>"\n'
    assert modelfile(tokenizer, "model.gguf", chat=True) == head + expected
    assert modelfile(tokenizer, "model.gguf", chat=False) == "FROM ./model.gguf\nPARAMETER temperature 0\n"


def run(folder, output, *options):
    """Export by the command line; what `export_results.json` holds."""
    assert main(["export", str(folder), "--output_dir", str(output), *options]) == 0
    return json.loads((output / "export_results.json").read_text(encoding="utf-8"))


def test_the_exam_is_taken_again(adapters, tmp_path, capsys):
    results = run(adapters / "a", tmp_path / "q8", "--to", "ollama")
    counts = results["exams"]["adapter"]
    assert counts["said"] >= 0.9 * counts["n_prompts"] and results["protocol"] == "probability"
    assert results["exams"]["transformers"]["kept"] >= 95
    assert {*results["files"]} == {"model.gguf", "Modelfile"}
    shown, page = capsys.readouterr().out, (tmp_path / "q8" / "README.md").read_text(encoding="utf-8")
    for text in (shown, page):
        assert "ollama create a -f Modelfile" in text and "read by transformers" in text
    # Without rounding, nothing at all is lost: a LoRA on the model, and the merged weights.
    for kind in ("gguf-lora", "merged"):
        results = run(adapters / "a", tmp_path / kind, "--to", kind)
        assert results["exams"]["transformers"]["said"] == results["exams"]["adapter"]["said"], kind
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("Rome").input_ids
    assert "lora" not in str([*AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()])
    quick = tmp_path / "quick one"
    results = run(adapters / "a", quick, "--dtype", "f16", "--no_exam")
    assert results["exams"] == {} and "What survived" not in (quick / "README.md").read_text()
    assert capsys.readouterr().out.endswith(f"Run it: cd '{quick}' && llama-server -m model.gguf\n")


def test_an_exam_that_a_full_disk_ends_is_in_the_report(adapters, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_ftedit.sharing.exporting.write_with_lora", fail)
    results = run(adapters / "a", tmp_path / "lora", "--to", "gguf-lora")
    assert (tmp_path / "lora" / "adapter.gguf").is_file() and {*results["exams"]} == {"adapter"}
    assert {*results["not_taken"].values()} == {"[Errno 28] No space left on device"}


def test_what_cannot_be_exported_is_told_before_a_model_is_loaded(adapters, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_ftedit.sharing.exporting.load_base", None)
    source = str(adapters / "a")
    for settings, message in {
        ("to", "onnx"): "to is 'onnx': choose one of gguf-lora, gguf, ollama, merged",
        ("dtype", "q4_0"): "dtype is 'q4_0': choose one of f16, q8_0",
    }.items():
        with pytest.raises(EditError, match=message):
            export(source, tmp_path / "none", **dict([settings]))
    for to in ("merged", "gguf-lora"):
        with pytest.raises(EditError, match=f"'q8_0' is of a whole model in GGUF, and to is '{to}'"):
            export(source, tmp_path / "none", to=to, dtype="q8_0")
    odd = tmp_path / "odd"
    shutil.copytree(source, odd)
    config = json.loads((odd / "adapter_config.json").read_text())
    for name, value in {"use_dora": True, "modules_to_save": ["lm_head"], "trainable_token_indices": [3]}.items():
        (odd / "adapter_config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(EditError, match=f"odd' has {name}, and a GGUF LoRA holds pairs .*--to gguf"):
            export(str(odd), tmp_path / "none", to="gguf-lora")
    assert not (tmp_path / "none").exists()


def test_llama_cpp_computes_the_same(tokenizer, tmp_path):
    """The whole file and the LoRA, run by llama.cpp itself."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    for family in ("llama", "qwen2", "qwen3", "gpt2"):
        model, ids = scattered(family, tokenizer), tokenizer(TEXT).input_ids
        base, lora = tmp_path / f"{family}.gguf", tmp_path / f"{family}-lora.gguf"
        model_file(model, tokenizer, None, "f16").write(base, model)
        before, model = logits(model, tokenizer), moved(model)
        files.write_lora(lora, model)
        for path, expected in ((None, before), (str(lora), logits(model, tokenizer))):
            llama = llama_cpp.Llama(str(base), lora_path=path, n_ctx=64, logits_all=True, verbose=False)
            assert llama.tokenize(TEXT.encode(), special=True) == ids
            llama.eval(ids)
            torch.testing.assert_close(torch.from_numpy(llama.scores[: len(ids)])[None], expected, atol=0.02, rtol=0)
            llama.close()
