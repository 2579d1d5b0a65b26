"""Folders that are written: exactly their files, whole or not at all, and nothing of this machine in them."""

import json
import os
import stat
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from huggingface_hub import parse_eval_result_entries
from peft import LoraConfig, get_peft_model
from test_card import AFTER, RECIPE, RECORDS, RESULTS
from tiny import bpe_tokenizer, chat_tokenizer, logits, saved, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_ftedit.data.readers import read_edits
from hf_ftedit.errors import EditError
from hf_ftedit.hub.dataset_card import save_dataset_folder
from hf_ftedit.hub.folder import ADAPTER_FILES, finish_folder, published_files, read_edit_folder, save_edit_folder
from hf_ftedit.hub.load import open_edits
from hf_ftedit.hub.schemas import recipe_rule
from hf_ftedit.models.loading import load_model
from hf_ftedit.sharing.verification import _entry_checks

TEXT_FILES = [name for name in ADAPTER_FILES if not name.endswith((".safetensors", ".png"))]


@pytest.fixture(scope="module")
def tokenizer():
    return bpe_tokenizer()


@pytest.fixture
def base_folder(tokenizer, tmp_path):
    """A base model in a folder of this machine, whose path is nobody else's business."""
    return Path(saved(tmp_path / "home-of-somebody" / "my-base", tiny_model("gpt2", tokenizer), tokenizer))


@pytest.fixture
def adapter(base_folder):
    """A LoRA that does something, on the base model as it was loaded from its folder."""
    config = LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), config).eval()


def save(folder, model, tokenizer, **given):
    given = {"records": RECORDS, "results": RESULTS, "recipe": RECIPE, **given}
    save_edit_folder(folder, model, tokenizer, **given)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("whole_first", [True, False])
def test_another_kind_of_model_replaces_the_one_that_is_there(adapter, tokenizer, tmp_path, whole_first):
    """An adapter beside another model's weights would be loaded on top of them."""
    folder = tmp_path / "out"
    whole = tiny_model("gpt2", tokenizer)
    first, second = (whole, adapter) if whole_first else (adapter, whole)
    save(folder, first, tokenizer)
    (folder / "notes.txt").write_text("mine")
    save(folder, second, tokenizer)
    save(tmp_path / "alone", second, tokenizer)
    assert names(folder) == sorted([*names(tmp_path / "alone"), "notes.txt"])


def test_exactly_the_files_of_an_adapter_are_written_and_replaced(adapter, tokenizer, tmp_path):
    folder = tmp_path / "out" / "deep" / "adapter"
    save(folder, adapter, tokenizer, records=RECORDS[:1])
    assert names(folder) == sorted(ADAPTER_FILES) and len(read_edits(folder / "edits.jsonl")) == 1
    (folder / "notes.txt").write_text("mine")
    save(folder, adapter, tokenizer)
    assert names(folder) == sorted([*ADAPTER_FILES, "notes.txt"]) and names(folder.parent) == ["adapter"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert read_edits(folder / "edits.jsonl") == RECORDS
    assert json.loads((folder / "eval_results.json").read_text()) == RESULTS
    recipe = yaml.safe_load((folder / "edit_config.yaml").read_text())
    assert {name: value for name, value in recipe.items() if name != "provenance"} == RECIPE
    assert "# 2 edited facts in `user/tiny-gpt2`" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["edits.jsonl", "eval_results.json", "adapter_config.json"])
def test_a_folder_with_other_edits_or_without_settings_is_not_opened(adapter, tokenizer, tmp_path, name):
    save(tmp_path / "a", adapter, tokenizer)
    assert open_edits(str(tmp_path / "a")).records == RECORDS
    lines = (tmp_path / "a" / name).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "a" / name).write_text("".join(lines[:1] if name == "edits.jsonl" else [*lines, "\n"]))
    if name == "adapter_config.json":  # which may be edited, and must be there
        open_edits(str(tmp_path / "a"))
        (tmp_path / "a" / name).unlink()
    with pytest.raises(EditError, match=f"{name} is missing or was changed; copy or download the folder again"):
        open_edits(str(tmp_path / "a"))


def test_no_file_tells_where_the_base_model_was(adapter, base_folder, tokenizer, tmp_path):
    assert json.loads(json.dumps(adapter.peft_config["default"].base_model_name_or_path)) == str(base_folder)
    folder = tmp_path / "adapter"
    save(folder, adapter, tokenizer)
    for name in ADAPTER_FILES:
        content = (folder / name).read_bytes()
        assert b"home-of-somebody" not in content and str(tmp_path).encode() not in content, name
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "my-base"


def test_a_whole_model_is_saved_with_its_tokenizer_and_without_its_old_place(base_folder, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base_folder).eval()
    folder = tmp_path / "whole"
    save(folder, model, AutoTokenizer.from_pretrained(base_folder))
    assert set(names(folder)) >= {"model.safetensors", "config.json", "tokenizer.json", "edits.jsonl", "README.md"}
    assert not [name for name in names(folder) if name.endswith((".bin", ".pt", ".pkl"))]
    for file in folder.iterdir():
        assert b"home-of-somebody" not in file.read_bytes(), file.name
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model))
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tokenizer)


def test_named_templates_and_code_of_a_whole_model_are_published(base_folder, tmp_path):
    """transformers saves both beside the weights; a folder that named them could not be read again."""
    (base_folder / "own.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((base_folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    (base_folder / "config.json").write_text(json.dumps(config))
    tokenizer, whole = chat_tokenizer(), tmp_path / "whole"
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    save(whole, load_model(str(base_folder), trust_remote_code=True), tokenizer)
    below = {path.relative_to(whole).as_posix() for path in published_files(whole)}
    assert {"own.py", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"} <= below
    loaded = load_model(str(whole), trust_remote_code=True)
    assert type(loaded).__name__ == "OwnModel"
    assert AutoTokenizer.from_pretrained(whole).chat_template == tokenizer.chat_template


def test_a_base_model_with_two_dots_in_its_name_is_read_again():
    recipe_rule({**RECIPE, "model_name_or_path": "base..v2"}, "edit_config.yaml")
    for path in ("..", "../base", "base/.."):
        with pytest.raises(EditError, match="model_name_or_path is '.*', not a Hub id or a name"):
            recipe_rule({**RECIPE, "model_name_or_path": path}, "edit_config.yaml")


@pytest.mark.parametrize(
    "broken", [{"recipe": {"a": object()}}, {"results": {"protocol": object()}}, {"records": [1]}]
)
def test_a_failure_leaves_no_folder(adapter, tokenizer, tmp_path, broken):
    (tmp_path / "out").mkdir()
    with pytest.raises((TypeError, AttributeError, yaml.YAMLError)):
        save(tmp_path / "out" / "adapter", adapter, tokenizer, **broken)
    assert names(tmp_path / "out") == []


def test_edits_of_a_hub_dataset_have_their_scores_for_its_leaderboard(adapter, tokenizer, tmp_path):
    sources = {"datasets": ["user/facts:train", "user/pool"]}
    recipe = {**RECIPE, "locality_pool": "user/pool", "provenance": sources}
    save(tmp_path, adapter, tokenizer, recipe=recipe)
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "facts.yaml").read_text()))
    tasks = ("edit_score", "efficacy", "generalization", "locality")
    assert [(entry.task_id, entry.value) for entry in entries] == [(name, round(AFTER[name], 2)) for name in tasks]
    assert {(entry.dataset_id, entry.notes) for entry in entries} == {("user/facts", "2 edits, probability protocol")}
    assert tmp_path / ".eval_results" / "facts.yaml" in published_files(tmp_path)
    saved = read_edit_folder(tmp_path)
    assert {check.verdict for check in _entry_checks(saved)} == {"ok"}
    better = {**saved.results["after"], "efficacy": 12.0}
    differ = [check for check in _entry_checks(saved._replace(results={"after": better})) if check.verdict != "ok"]
    assert [(check.claimed, check.measured) for check in differ] == [("100.0", "12.0")]
    (tmp_path / ".eval_results" / "facts.yaml").write_text("- 5\n")
    assert [check.verdict for check in _entry_checks(saved)] == ["DIFFERS"]

    save(tmp_path, adapter, tokenizer)
    assert not any((tmp_path / ".eval_results").iterdir())


def test_a_card_that_was_edited_by_hand_stays_for_every_repository(adapter, tokenizer, tmp_path):
    save(tmp_path, adapter, tokenizer)
    finish_folder(tmp_path, "user/first")
    card = tmp_path / "README.md"
    assert "hf-ftedit verify user/first" in card.read_text(encoding="utf-8")
    card.write_text("My own words.\n", encoding="utf-8")
    for name in ("user/first", "user/second"):
        finish_folder(tmp_path, name)
        assert card.read_text(encoding="utf-8") == "My own words.\n"
        assert read_edit_folder(tmp_path).provenance["repo_id"] == name


@pytest.mark.parametrize(("mask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_permissions_are_those_of_the_umask(adapter, tokenizer, tmp_path, mask, folder_mode, file_mode):
    before = os.umask(mask)
    try:
        save(tmp_path / "adapter", adapter, tokenizer)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "adapter").stat().st_mode) == folder_mode
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "adapter").iterdir()} == {file_mode}


def test_text_files_are_utf8_with_plain_line_ends(adapter, tokenizer, tmp_path):
    edit = [*read_edits([{"prompt": "Zürich liegt in der", "target_new": "日本"}])]
    save(tmp_path / "adapter", adapter, tokenizer, records=edit)
    for name in TEXT_FILES:
        content = (tmp_path / "adapter" / name).read_bytes()
        assert content.endswith(b"\n") and b"\r" not in content, name
    for name in ("README.md", "edits.jsonl"):
        assert "日本" in (tmp_path / "adapter" / name).read_text(encoding="utf-8")


def test_a_saved_dataset_is_loaded_with_its_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"prompt": ["A is", "B is"], "completion": [" x", " ä"]}
    splits = {"train": Dataset.from_dict(rows), "rewrite": Dataset.from_dict(rows).take(1)}
    empty = Dataset.from_dict({"prompt": [], "completion": []})
    (tmp_path / "model").mkdir()
    settings = {"num_locality": 3, "similar_model": str(tmp_path / "model")}
    save_dataset_folder(tmp_path / "data", DatasetDict({**splits, "portability": empty}), settings)
    assert names(tmp_path / "data") == ["README.md", "rewrite.parquet", "train.parquet"]
    loaded = datasets.load_dataset(str(tmp_path / "data"))
    assert {name: split.to_list() for name, split in loaded.items()} == {
        name: split.to_list() for name, split in splits.items()
    }
    card = (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert "| train | 2 |" in card and "num_locality: 3" in card
    assert "similar_model: model\n" in card and str(tmp_path) not in card
