"""A folder that 0.1.0 wrote is opened, loaded, verified, merged and continued from."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from hf_ftedit import EditConfig, EditTrainer, load_edited_model, merge, open_edits, verify
from hf_ftedit.data.records import EditRecord
from hf_ftedit.models.generation import greedy_answers
from hf_ftedit.models.loading import EMBEDDED_NAME

pytestmark = pytest.mark.usefixtures("few_drift_prompts")
FOLDER = Path(__file__).parents[1] / "fixtures" / "folder_0.1.0"
SCORES = ("edit_score", "efficacy", "generalization", "locality")
NEW = EditRecord("new", "The capital of Peru is", "Cusco")


@pytest.fixture(scope="module")
def saved():
    return open_edits(str(FOLDER))


def test_it_is_opened(saved):
    recipe = yaml.safe_load((FOLDER / "edit_config.yaml").read_text(encoding="utf-8"))
    assert "record" in recipe and "provenance" not in recipe  # 0.1.0's name
    assert saved.provenance == recipe.pop("record") and saved.recipe == recipe
    assert saved.recipe["model_name_or_path"] == EMBEDDED_NAME and saved.is_adapter
    assert saved.results == json.loads((FOLDER / "eval_results.json").read_text(encoding="utf-8"))
    assert len(saved.records) == saved.results["n_edits"] == 10


def test_it_answers_as_it_did(saved):
    model, tokenizer = load_edited_model(str(FOLDER))
    answers = greedy_answers(model, tokenizer, [edit.prompt for edit in saved.records])
    assert answers == [answer["after"] for answer in saved.results["answers"]]


def test_it_verifies():
    verification = verify(str(FOLDER))
    assert verification.passed and {check.verdict for check in verification.checks} == {"ok"}


def test_it_is_merged(saved, tmp_path):
    """Half of it and half of its copy, with a setting as it is written now, are the whole again."""
    shutil.copytree(FOLDER, tmp_path / "copy")
    with open(tmp_path / "copy" / "edit_config.yaml", "a", encoding="utf-8") as recipe:
        recipe.write("end_of_answer: false\n")
    both = merge([str(FOLDER), str(tmp_path / "copy")], tmp_path / "both", weights=[0.5, 0.5])
    assert both.records == saved.records and both.provenance["rank"] == 2 * saved.provenance["rank"]
    assert [part["name"] for part in both.provenance["parts"]] == ["folder_0.1.0", "copy"]
    for name in SCORES:
        assert both.results["after"][name] == pytest.approx(saved.results["after"][name], abs=0.01), name
    assert both.results["answers"] == saved.results["answers"]


def test_training_goes_on_from_it(saved, tmp_path):
    args = EditConfig(adapter=str(FOLDER), output_dir=str(tmp_path / "more"), max_steps=2, num_locality=2,
                      num_paraphrases=2, text_loss_weight=0, report_to="none", disable_tqdm=True)  # fmt: skip
    trainer = EditTrainer(args=args, train_dataset=[NEW])
    trainer.train()
    trainer.save_model()
    more = open_edits(str(tmp_path / "more"))
    assert [edit.edit_id for edit in more.records] == [*(edit.edit_id for edit in saved.records), "new"]
    assert more.recipe["adapter"] == "folder_0.1.0" and "record" not in more.recipe
    retention = more.results["retention"]
    assert retention["n_edits"] == 10 and retention["before"]["efficacy"] == saved.results["after"]["efficacy"]
    # What the earlier adapter's edits were before is in that adapter alone.
    checks = verify(str(tmp_path / "more")).checks
    assert [check.name for check in checks if check.verdict != "ok"] == ["retention: before"]
