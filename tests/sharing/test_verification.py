"""Published files against their sums, the card's numbers and measured scores, without a model."""

import json
import shutil
from pathlib import Path

import pytest

from hf_ftedit import hub, verify
from hf_ftedit.hub.folder import SavedEdits, read_edit_folder
from hf_ftedit.sharing.verification import BAD, GOOD, OPEN, Check, _card_checks, _file_checks, _score_checks

FOLDER = Path(__file__).parents[1] / "fixtures" / "folder_0.1.0"


def better(results):
    results = json.loads(results)
    results["after"]["portability"] -= 20
    return json.dumps(results).encode()


# Of each file that somebody changed, the change, and the claims that do not hold then.
TAMPERED = {
    "eval_results.json": (better, ["card: portability", "eval_results.json"]),
    "edits.jsonl": (lambda edits: b"".join(edits.splitlines(keepends=True)[:-1]), ["edits.jsonl"]),
    "adapter_model.safetensors": (lambda weights: weights[:-1] + b"x", ["adapter_model.safetensors"]),
    "README.md": (lambda card: card.replace(b"value: 98.63", b"value: 100.0"), ["card: edit score"]),
    "scores.png": (None, ["scores.png"]),
}


@pytest.mark.parametrize("name", [None, *TAMPERED])
def test_tampering_is_found_before_a_model_is_loaded(name, tmp_path):
    file = shutil.copytree(FOLDER, tmp_path / "folder") / (name or "README.md")
    change, expected = TAMPERED.get(name, (bytes, []))
    content = change and change(file.read_bytes())
    file.unlink() if content is None else file.write_bytes(content)
    saved = read_edit_folder(file.parent)
    checks = [*_file_checks(file.parent, saved.provenance["files"]), *_card_checks(saved)]
    assert sorted(check.name for check in checks if check.verdict == BAD) == expected and len(checks) > 10


@pytest.mark.parametrize("place", ["metric", "model"])
def test_a_card_that_states_a_score_twice_fails(place, tmp_path):
    file = shutil.copytree(FOLDER, tmp_path / "folder") / "README.md"
    metric = "    - type: efficacy\n      value: 100.0\n"
    model = f"- name: other\n  results:\n  - metrics:\n{metric}"
    where, more = (
        ("    metrics:\n", f"    metrics:\n{metric}") if place == "metric" else ("\n---\n", f"\n{model}---\n")
    )
    card = file.read_text(encoding="utf-8").replace(where, more.replace("100.0", "12.0"), 1)
    file.write_text(card, encoding="utf-8")
    checks = _card_checks(read_edit_folder(file.parent))
    assert "card: number of scores" in {check.name for check in checks if check.verdict == BAD}


def test_a_claim_is_shown_with_the_digits_by_which_it_differs(tmp_path):
    file = shutil.copytree(FOLDER, tmp_path / "folder") / "README.md"
    file.write_bytes(file.read_bytes().replace(b"value: 98.63", b"value: 98.634"))
    checks = _card_checks(read_edit_folder(file.parent))
    assert Check("card: edit score", "98.634", "98.63", BAD) in checks


def test_scores_are_shown_with_the_digits_by_which_they_differ():
    published = {"protocol": "accuracy", "n_edits": 8, "before": {}, "after": {"efficacy": 97.674, "locality": 93.333}}
    again = {**published, "after": {"efficacy": 97.6741, "locality": 80.0}}
    _, _, *checks = _score_checks(SavedEdits(Path(), [], published, {}, {}), again, 1e-6)
    assert checks == [
        Check("after: efficacy", "97.674", "97.6741", BAD),
        Check("after: locality", "93.33", "80.00", BAD),
    ]


def test_all_files_are_of_one_commit(monkeypatch):
    revisions = []

    def fetch(name, patterns=None, *, revision, token):
        revisions.append(revision)
        return FOLDER

    monkeypatch.setattr(hub, "fetch_folder", fetch)
    monkeypatch.setattr("hf_ftedit.sharing.verification._measure_again", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify("user/edits", revision="main")
    assert revisions == ["main", FOLDER.name]  # the branch may go on in between; the folder's name is its commit


SCORES = {"efficacy": 90.0, "drift": 0.1, "near_names": 80.0}


def verdicts(claimed, measured, recipe=None):
    both = ({"protocol": "containment", "n_edits": 1, "before": {}, "after": after} for after in (claimed, measured))
    published, again = both
    checks = _score_checks(SavedEdits(Path(), [], published, recipe or {}, {}), again, 1.0)
    return {check.name.removeprefix("after: "): check.verdict for check in checks if check.name.startswith("after")}


def test_scores_that_0_1_0_did_not_measure_are_no_claim():
    assert verdicts({"efficacy": 90.0}, SCORES) == {"efficacy": GOOD}
    # Another one that is missing is.
    assert verdicts({"drift": 0.1}, SCORES) == {"efficacy": BAD, "drift": GOOD}
    published = {"protocol": "accuracy", "n_edits": 8, "before": {}, "after": {}}
    checks = _score_checks(SavedEdits(Path(), [], published, {}, {}), {**published, "n_edits": 7}, 1.0)
    assert [check.verdict for check in checks] == [GOOD, BAD]  # the protocol is the same


@pytest.mark.parametrize(("drift", "verdict"), [(0.119, GOOD), (0.121, BAD), (None, BAD), ("0.1", BAD)])
def test_drift_may_differ_by_nats(drift, verdict):
    assert verdicts(SCORES | {"drift": drift}, SCORES)["drift"] == verdict
    assert verdicts(SCORES | {"near_names": 80.9}, SCORES)["near names"] == GOOD


@pytest.mark.parametrize(("source", "verdict"), [("facts.jsonl", OPEN), ("user/facts", BAD), (None, BAD)])
def test_what_was_measured_on_a_file_of_the_author_is_not_checked(source, verdict):
    recipe = {"known_facts": source, "perplexity_texts": source} if source else {}
    found = verdicts(SCORES | {"known_facts": 50.0, "perplexity": 20.0}, SCORES, recipe)
    assert (found["known facts"], found["perplexity"]) == (verdict, verdict)
