"""Published files against their sums, the card's numbers and measured results."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny import bpe_tokenizer, tiny_model

from hf_ftedit import EditOptions, hub, verify
from hf_ftedit.evaluation.engine import EvaluatedModel
from hf_ftedit.hub.folder import SavedEdits, read_edit_folder, sha256
from hf_ftedit.sharing.verification import (
    BAD,
    GOOD,
    OPEN,
    Check,
    _as_claimed,
    _card_checks,
    _file_checks,
    _leaf_checks,
    _score_checks,
)

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


RESULTS = json.loads((FOLDER / "eval_results.json").read_text(encoding="utf-8"))
PARTS = {"after": {"portability_aspects": {"hop": {"portability": 50.0}}, "drift_by_sort": {"code": 0.1}}}


def changed(results, place, value):
    """A copy of the results with `value` at a place such as `"after: efficacy_ci95: 0"`."""
    *parents, last = [int(name) if name.isdigit() else name for name in place.split(": ")]
    part = results = copy.deepcopy(results)
    for name in parents:
        part = part[name]
    part[last] = value
    return results


def leaf_checks(claimed, measured, recipe=None):
    return [*_leaf_checks(SavedEdits(Path(), [], claimed, recipe or {}, {}), measured, 1.0)]


@pytest.mark.parametrize(
    ("place", "value", "holds"),
    [
        ("after: locality_ci95: 0", 93.1, False),  # 90 was measured
        ("after: locality_ci95: 0", 92.9, True),
        ("after: containment: efficacy", 10.0, False),
        ("before: accuracy: efficacy", 25.9, True),
        ("before: accuracy: efficacy", 26.1, False),
        ("after: n_probes: paraphrase", 28, False),
        ("after: edit_score_note", "no probes", False),
        ("after: portability_aspects", PARTS["after"]["portability_aspects"], False),
        ("change: locality: difference", -1.5, True),  # -4
        ("change: locality: difference", 4.0, False),
        ("change: locality: p_value", 0.001, False),  # 0.49
        ("change: locality: p_value", 0.2, True),
        ("change: efficacy: p_value", 0.04, True),  # 0.0015
        ("change: efficacy: n_edits", 100, False),
        ("base_model", "gpt2", False),
        ("answers: 3: before", "Rome", False),
        ("example: output", "Emma is a work by nobody", False),
    ],
)
def test_every_result_is_compared(place, value, holds):
    checks = leaf_checks(changed(RESULTS, place, value), RESULTS)
    assert not leaf_checks(RESULTS, RESULTS) and bool(checks) is not holds
    assert all(check.verdict == BAD and check.name.startswith(place) for check in checks)


def test_results_by_sort_and_aspect_are_compared():
    measured = {name: RESULTS[name] | PARTS.get(name, {}) for name in ("before", "after")}
    assert not leaf_checks(changed(measured, "after: drift_by_sort: code", 0.159), measured)
    for place, value in (("drift_by_sort: code", 0.161), ("portability_aspects: hop: portability", 48.9)):
        (check,) = leaf_checks(changed(measured, f"after: {place}", value), measured)
        assert (check.name, check.claimed, check.verdict) == (f"after: {place}", str(value), BAD)


def test_what_only_the_author_has_is_no_claim_that_differs():
    claimed = changed(changed(RESULTS, "after: perplexity_ci95", [1.0, 2.0]), "after: n_texts", 3)
    assert not leaf_checks(claimed, RESULTS, {"perplexity_texts": "texts.jsonl"})
    assert len(leaf_checks(claimed, RESULTS, {"perplexity_texts": "user/texts"})) == 3
    # 0.1.0 cut the own answers of chat models.
    chat = changed(claimed, "after: containment: efficacy", 10.0)
    recipe = {"chat_template": True, "perplexity_texts": "texts.jsonl"}
    (check,) = leaf_checks(chat, {name: RESULTS[name] for name in ("before", "after")}, recipe)
    assert (check.name, check.verdict) == ("answers", OPEN)


def test_an_answer_that_is_about_as_likely_is_what_other_hardware_may_give():
    tokenizer = bpe_tokenizer()
    evaluated = EvaluatedModel(tiny_model("llama", tokenizer), tokenizer, EditOptions())  # all tokens are as likely
    claimed = ["Italy", " Peru ", "", "a" * 1000]
    assert _as_claimed(evaluated, ["Rome is in"] * 4, claimed, ["Peru"] * 4) == ["Italy", " Peru ", "Peru", "Peru"]
    assert _as_claimed(evaluated, ["Rome is in"] * 2, ["Italy"], ["Peru", "Rome"]) == ["Italy", "Rome"]


@pytest.mark.usefixtures("few_drift_prompts")
def test_forged_results_are_found_and_named(tmp_path):
    file = shutil.copytree(FOLDER, tmp_path / "folder") / "eval_results.json"
    forged = {
        "answers: 0: before": "Virginia Woolf",
        "answers: 2: after": "Stephen King",
        "example: output": "Emma is a work by Jane Austen. The country where one can",
        "after: exact_match: efficacy": 100.0,
        "change: locality: p_value": 0.001,
        "retention: after: efficacy": 50.0,
    }
    both = {when: {"efficacy": RESULTS["after"]["efficacy"]} for when in ("before", "after")}
    results = RESULTS | {"retention": {"adapter": "one", "n_edits": 10, **both}}
    results["revoked"] = {"adapter": "one", "n_edits": 1, "n_probes": 3, "back": 100.0}
    for place, value in forged.items():
        results = changed(results, place, value)
    file.write_text(json.dumps(results), encoding="utf-8")
    recipe = yaml.safe_load((file.parent / "edit_config.yaml").read_text(encoding="utf-8"))
    recipe["record"]["files"][file.name] = sha256(file)
    (file.parent / "edit_config.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    checks = verify(str(file.parent)).checks
    assert {check.name for check in checks if check.verdict == BAD} == {*forged}
    assert {check.name for check in checks if check.verdict == OPEN} == {"retention: before", "revoked"}
