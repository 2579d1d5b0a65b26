"""A base model in GGUF through all verbs: what is saved names its file, without a path, and finds it again."""

import json
import os
import re
import shutil
import sys

import pytest
import torch
import yaml
from loopback_hub import LoopbackHub, run
from tiny import chat_tokenizer, eloquent, write_gguf

from hf_ftedit import EditConfig, EditTrainer, load_edited_model, load_model, load_tokenizer, open_edits
from hf_ftedit.cli.app import main
from hf_ftedit.hub.folder import RECIPE_FILE
from hf_ftedit.hub.markdown import visible

pytest.importorskip("gguf", reason="gguf is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_drift_prompts")]  # two trainings for all
FACTS = {"kz": ("Kazakhstan", "Rome"), "peru": ("Peru", "Oslo"), "no": ("Norway", "Bergen"), "it": ("Italy", "Astana")}
EDITS = {
    name: {
        **{"edit_id": name, "prompt": f"The capital of {country}?", "subject": country, "target_new": city},
        "paraphrase_prompts": [f"What is the capital of {country}?"],
        "neighborhood_prompts": ["What lies between Bergen and Oslo?"],
    }
    for name, (country, city) in FACTS.items()
}
QUICK = "--max_steps 2 --num_paraphrases 2 --num_locality 2 --prefix_counts 1 1".split()
QUICK += "--text_loss_weight 0 --report_to none".split()


def train(folder, edits, *options):
    """Exit code of `train` with these of the edits."""
    source = folder.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(EDITS[name]) + "\n" for name in edits))
    return main(["train", "--edits", str(source), "--output_dir", str(folder), *options, *QUICK])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the model's folder, and two adapters made from elsewhere."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny").mkdir()
    tokenizer = chat_tokenizer()
    write_gguf(home / "tiny" / "tiny.Q8_0.gguf", eloquent("llama", tokenizer), tokenizer, "Q8_0")
    file = str(home / "tiny" / "tiny.Q8_0.gguf")
    assert train(home / "a", ["kz", "peru"], "--model_name_or_path", file, "--chat_template") == 0
    place = ["--model_name_or_path", str(home / "tiny"), "--gguf_file", "tiny.Q8_0.gguf"]
    assert train(home / "b", ["no"], *place, "--chat_template") == 0
    return home


def test_what_is_saved_names_the_file_and_no_path(home):
    recipe = yaml.safe_load((home / "a" / RECIPE_FILE).read_text())
    assert (recipe["model_name_or_path"], recipe["gguf_file"]) == ("tiny", "tiny.Q8_0.gguf")
    assert open_edits(str(home / "b")).recipe["gguf_file"] == "tiny.Q8_0.gguf"
    assert not [file.name for file in (home / "a").iterdir() if str(home).encode() in file.read_bytes()]


def test_the_card_loads_the_file(home, monkeypatch, capsys):
    card = (home / "a" / "README.md").read_text()
    assert "`tiny` (`tiny.Q8_0.gguf`, its weights unpacked)" in card and "with the base model `tiny` in it" in card
    assert "hf-ftedit merge . --merge_into_base" in card and "vllm" not in card
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    shutil.copytree(home / "a", home / "card", dirs_exist_ok=True)
    shutil.copytree(home / "tiny", home / "card" / "tiny", dirs_exist_ok=True)
    monkeypatch.chdir(home / "card")
    exec(snippet, {})
    printed = re.search(r"printed:\n\n```text\n(.*?)\n```", card, re.DOTALL)[1]
    assert visible(capsys.readouterr().out.strip(" \n")) == printed


def test_verify_evaluate_and_load_take_the_recorded_file(home, monkeypatch, capsys):
    assert main(["verify", str(home / "a")]) == 2  # it is not here
    assert "gguf_file 'tiny.Q8_0.gguf': no such file; give its path" in capsys.readouterr().err
    copy = [["--model_name_or_path", str(home / "tiny")], ["--gguf_file", str(home / "tiny" / "tiny.Q8_0.gguf")]]
    for place in copy:
        assert main(["verify", str(home / "a"), *place]) == 0
    monkeypatch.chdir(home)
    edits = ["--edits", "a/edits.jsonl", "--output_dir"]
    assert main(["verify", "a"]) == 0 and main(["evaluate", "--adapter", "a", *edits, "scores"]) == 0
    assert "every claim holds" in capsys.readouterr().out
    saved, measured = (json.loads((home / name / "eval_results.json").read_text()) for name in ("a", "scores"))
    for when in ("before", "after"):
        assert measured[when]["efficacy"] == saved[when]["efficacy"]
    model, tokenizer = load_edited_model("a")
    ids = tokenizer("Rome is in", return_tensors="pt").input_ids
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(ids).logits, load_model("tiny/tiny.Q8_0.gguf")(ids).logits)


def test_its_recipe_trains_it_again(home, monkeypatch, tmp_path):
    folder = shutil.copytree(home / "a", tmp_path / "a")
    shutil.copytree(home / "tiny", folder / "tiny")
    monkeypatch.chdir(folder)
    assert main(["train", "--config", RECIPE_FILE, "--output_dir", "again", "--report_to", "none"]) == 0
    name = "adapter_model.safetensors"
    assert (folder / "again" / name).read_bytes() == (home / "a" / name).read_bytes()


def test_it_is_continued_merged_and_augmented(home, monkeypatch):
    monkeypatch.chdir(home)
    assert train(home / "more", ["it"], "--adapter", "a") == 0
    more = open_edits("more")
    assert more.recipe["gguf_file"] == "tiny.Q8_0.gguf" and len(more.records) == 3
    assert main(["merge", "a", "b", "--output_dir", "both"]) == 0 and main(["verify", "both"]) == 0
    assert main(["merge", "a", "--merge_into_base", "--output_dir", "whole"]) == 0 and main(["verify", "whole"]) == 0
    assert open_edits("both").recipe["gguf_file"] == open_edits("whole").recipe["gguf_file"] == "tiny.Q8_0.gguf"
    assert not [file.name for file in (home / "whole").iterdir() if str(home).encode() in file.read_bytes()]
    whole, tokenizer = load_edited_model("whole")
    base = "tiny/tiny.Q8_0.gguf"
    assert not hasattr(whole, "gguf_file") and tokenizer.chat_template == load_tokenizer(base).chat_template
    rows = ["--edits", "a.jsonl", "--chat_template", "--output_dir", "rows"]
    assert main(["augment", "--gguf_file", base, *rows]) == 0


def test_a_model_that_was_loaded_brings_its_tokenizer(home, tmp_path):
    settings = {"use_cpu": True, "bf16": False, "report_to": "none", "chat_template": True, "num_locality": 0}
    args = EditConfig(output_dir=str(tmp_path), paraphrase_strategy="none", **settings)
    trainer = EditTrainer(load_model(str(home / "tiny" / "tiny.Q8_0.gguf")), args, train_dataset=[EDITS["kz"]])
    assert trainer.processing_class.chat_template and trainer.recipe["gguf_file"] == "tiny.Q8_0.gguf"


def test_another_file_is_no_base_of_it(home, tmp_path, capsys):
    tokenizer = chat_tokenizer()
    write_gguf(tmp_path / "other.gguf", eloquent("llama", tokenizer), tokenizer, "F32")
    for flag in ("--gguf_file", "--model_name_or_path"):
        assert main(["verify", str(home / "a"), flag, str(tmp_path / "other.gguf")]) == 2
        refusal = "was trained on another base model (the weights differ); give that one, 'tiny'"
        assert refusal in capsys.readouterr().err


FROM_HUB = """
import json, sys
from huggingface_hub import HfApi
from hf_ftedit import load_edited_model, open_edits
from hf_ftedit.cli.app import main
given = json.load(sys.stdin)
HfApi().create_repo("user/tiny-gguf")
commit = HfApi().upload_folder(repo_id="user/tiny-gguf", folder_path=given["folder"]).oid
codes = [main([*given["train"], "--model_name_or_path", "user/tiny-gguf", "--gguf_file", "tiny.Q8_0.gguf"])]
codes += [main(["verify", "from-hub"]), main(["verify", "from-hub", "--model_name_or_path", given["folder"]])]
recipe, config = open_edits("from-hub").recipe, load_edited_model("from-hub")[0].config
recipe = [recipe[name] for name in ("model_name_or_path", "gguf_file", "model_revision")]
print(json.dumps({"codes": codes, "recipe": recipe, "commit": [commit, config._commit_hash]}))
"""


def test_a_file_of_the_hub_is_recorded_with_its_commit(home, tmp_path):
    (tmp_path / "edits.jsonl").write_text(json.dumps(EDITS["kz"]))
    args = ["train", "--edits", "edits.jsonl", "--chat_template", "--output_dir", "from-hub", *QUICK]
    with LoopbackHub() as hub:
        environment = {**hub.environment(tmp_path / "cache", "hf_write"), "PYTHONPATH": os.pathsep.join(sys.path)}
        found = run(
            f"import os; os.chdir({str(tmp_path)!r})" + FROM_HUB, environment, folder=str(home / "tiny"), train=args
        )
    commit = found["commit"][0]
    assert found["codes"] == [0, 0, 0] and found["commit"] == [commit, commit]
    assert found["recipe"] == ["user/tiny-gguf", "tiny.Q8_0.gguf", commit]
    card = (tmp_path / "from-hub" / "README.md").read_text()
    assert "base_model: user/tiny-gguf\n" in card and card.count("revision=revision, gguf_file=gguf_file") == 2
