"""Scores as text: rounded, with their interval, change and number."""

import pytest

from hf_ftedit.evaluation.score_format import change_text, counts, edits_text, score_text

SCORES = {
    "edit_score": 94.67,
    "edit_score_ci95": [90.0, 100.0],
    "portability": None,
    "n_edits": 3,
    "n_edits_scored": {"locality": 2},
    "n_probes": {"rewrite": 3, "paraphrase": 5, "neighborhood": 4, "portability": 1},
    "n_texts": 7,
}


def test_scores_as_text():
    assert score_text(SCORES, "edit_score") == "94.7 (90.0 to 100.0)"
    assert score_text({"efficacy": 12.34}, "efficacy") == "12.3"
    assert score_text(SCORES, "portability") == score_text(SCORES, "efficacy") == "—"


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [(98.34, 0.0004, "+98.3 (p < 0.001)"), (-1.25, 0.001, "-1.2 (p = 0.001)"), (0.0, 1.0, "+0.0 (p = 1.000)")],
)
def test_changes_as_text(difference, p_value, expected):
    assert change_text({"difference": difference, "p_value": p_value}) == expected


def test_no_change_is_no_text():
    assert change_text(None) == ""


def test_one_edit_is_singular():
    assert [edits_text(number) for number in (0, 1, 2)] == ["0 edits", "1 edit", "2 edits"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficacy", (3, 3)),
        ("locality", (2, 4)),
        ("edit_score", (3, 12)),
        ("fluency", (3, 0)),
        ("perplexity", (None, 7)),
    ],
)
def test_edits_and_probes_behind_a_score(name, expected):
    assert counts(SCORES, name) == expected
