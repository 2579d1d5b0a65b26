"""Adapters made into one: exactly their sum by cat, conflicts named, the issue's bars on real edits."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import bpe_tokenizer, tiny_model

from hf_ftedit import load_edited_model, merge, read_edits, verify
from hf_ftedit.cli.app import main
from hf_ftedit.data.records import write_jsonl
from hf_ftedit.errors import EditError
from hf_ftedit.hub import SavedEdits
from hf_ftedit.hub.folder import sha256
from hf_ftedit.models.loading import load_model
from hf_ftedit.sharing.merging import Part, combine

# Whoever comes first trains the adapters.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_drift_prompts")]


@pytest.fixture(scope="module")
def folder(adapters, tmp_path_factory):
    """Two adapters of five edits each, and a copy of the first whose edits contradict three of its own."""
    folder = tmp_path_factory.mktemp("merging") / "adapters"
    shutil.copytree(adapters, folder)
    shutil.copytree(folder / "a", folder / "c")
    edits = read_edits(folder / "a.jsonl", limit=3)
    write_jsonl([replace(edit, target_new="Jonathan Swift") for edit in edits], folder / "c" / "edits.jsonl")
    recipe = (folder / "c" / "edit_config.yaml").read_text(encoding="utf-8")
    old, new = (sha256(folder / name / "edits.jsonl") for name in "ac")
    (folder / "c" / "edit_config.yaml").write_text(recipe.replace(old, new), encoding="utf-8")
    return folder


def results_of(path):
    return json.loads((path / "eval_results.json").read_text(encoding="utf-8"))


def deltas(model, adapter="default"):
    """B @ A times its scale, of every layer that has the adapter, in float64."""
    layers = {name: layer for name, layer in model.named_modules() if adapter in getattr(layer, "lora_A", ())}
    return {
        name: layer.lora_B[adapter].weight.double() @ layer.lora_A[adapter].weight.double() * layer.scaling[adapter]
        for name, layer in layers.items()
    }


def test_cat_with_weights_is_the_sum(folder):
    saved = merge([str(folder / "a"), str(folder / "b")], folder / "weighted", weights=[0.5, 2])
    assert [part["n_edits"] for part in saved.provenance["parts"]] == [5, 5] and saved.provenance["rank"] == 64
    models = (PeftModel.from_pretrained(load_model(None), folder / name) for name in ("a", "b", "weighted"))
    first, second, both = map(deltas, models)
    assert set(first) == set(both)
    for name, found in both.items():
        assert torch.allclose(found, 0.5 * first[name] + 2 * second[name], atol=1e-6), name


def test_conflicts_stop_it_with_the_command_that_retrains(folder):
    first, second = str(folder / "a"), str(folder / "c")
    with pytest.raises(
        EditError, match=r"edits conflict: 'Emma is a work by' is .* in .*a \(.* 'Jonathan Swift'"
    ) as error:
        merge([first, second], folder / "none")
    assert f"hf-ftedit train --adapter {first} --edits {second}/edits.jsonl --output_dir both" in str(error.value)
    assert "(2 more such conflicts)" in str(error.value) and not (folder / "none").exists()


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ("aa", {}, "merge got an adapter twice, which would double what it changes; name each once, or give weights"),
        ("ab", {"density": 2.0, "combination_type": "ties"}, "density is 2.0: give a number from 0 to 1"),
        ("ab", {"weights": [1.0, float("nan")]}, "weights is "),
        ("ab", {"weights": ["heavy", 1.0]}, "weights is .*: give a list, each a number"),
        ("ab", {"combination_type": "nobody"}, "combination_type 'nobody': .*; cat takes any adapters"),
    ],
)
def test_what_cannot_be_merged_is_told(folder, names, settings, message):
    with pytest.raises(EditError, match=message):
        merge([str(folder / name) for name in names], folder / "none", **settings)
    assert not (folder / "none").exists()


def test_earlier_edits_stay_when_training_goes_on(folder, caplog):
    args = ["--adapter", str(folder / "a"), "--edits", str(folder / "b.jsonl"), "--output_dir", str(folder / "more")]
    assert main(["train", *args, "--text_loss_weight", "0"]) == 0
    results = results_of(folder / "more")
    assert results["n_edits"] == 10 and results["retention"]["n_edits"] == 5
    assert results["retention"]["after"]["efficacy"] >= 90
    with caplog.at_level("WARNING"), pytest.raises(EditError, match="nobody"):
        merge([str(folder / "a"), str(folder / "more")], folder / "none", combination_type="nobody")
    assert "several of these adapters have 5 edits in common, and what they change is added up" in caplog.text


def test_an_adapter_goes_into_the_weights(folder):
    saved = merge([str(folder / "a")], folder / "whole", merge_into_base=True)
    assert not saved.is_adapter and verify(str(folder / "whole")).passed
    tokens = torch.arange(30)[None]
    whole, tokenizer = load_edited_model(str(folder / "whole"))
    merged, _ = load_edited_model(str(folder / "a"), merge=True)
    with torch.no_grad():
        assert torch.allclose(whole(tokens).logits, merged(tokens).logits, atol=1e-4)
    assert not hasattr(merged, "peft_config") and len(tokenizer) == whole.config.vocab_size


@pytest.mark.parametrize(("name", "value"), [("model_revision", "abc"), ("chat_template", "true")])
def test_other_bases_are_refused(folder, tmp_path, name, value):
    other = shutil.copytree(folder / "b", tmp_path / "other")
    text = (other / "edit_config.yaml").read_text(encoding="utf-8")
    settings = [line for line in text.splitlines() if not line.startswith(f"{name}:")]
    (other / "edit_config.yaml").write_text("\n".join([f"{name}: {value}", *settings]), encoding="utf-8")
    with pytest.raises(EditError, match=f"differ in {name} .*only adapters of one base model can be merged"):
        merge([str(folder / "a"), str(other)], tmp_path / "out")


def test_parts_in_other_layers_all_keep_their_weights(tmp_path):
    base = tiny_model("llama", bpe_tokenizer())
    for layer, name in enumerate("ab"):
        lora = LoraConfig(target_modules=["q_proj", "up_proj"], layers_to_transform=[layer])
        model = get_peft_model(copy.deepcopy(base), lora)
        for own, weight in model.named_parameters():
            weight.data += 0.3 * ("lora_B" in own)
        model.save_pretrained(tmp_path / name)
    alone = [deltas(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name)) for name in "ab"]
    parts = [Part(name, SavedEdits(tmp_path / name, [], {}, {}, {}), None, 1.0) for name in "ab"]
    both = deltas(combine(copy.deepcopy(base), parts))
    assert both.keys() == alone[0].keys() | alone[1].keys() and not alone[0].keys() & alone[1].keys()
    assert all(torch.allclose(delta, {**alone[0], **alone[1]}[name]) for name, delta in both.items())
