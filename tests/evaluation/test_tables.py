"""The tables on the screen: scores of hand-made predictions, as `eval_results.json` holds them."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from rich.cells import cell_len

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.diagnosis import diagnose
from hf_ftedit.evaluation.scoring import compare, score
from hf_ftedit.evaluation.tables import WIDTH, Table, change_text, counts, results_table, score_text
from hf_ftedit.text import masked

NOTE = "no neighborhood probe: locality is undefined"
KINDS = ("rewrite", "paraphrase", "neighborhood")


def row(edit_id, kind, accuracy, prompt="p", **more):
    expected = "true" if kind == "neighborhood" else "new"
    found = {"edit_id": edit_id, "kind": kind, "probe": prompt, "role": expected, "logprob": -1.0}
    return found | {"match": accuracy == 1.0, "token_accuracy": accuracy} | more


def said(edit_id, kind, accuracy, exact_match, containment, aspect=None):
    more = {"exact_match": exact_match, "containment": containment, "aspect": aspect}
    return row(edit_id, kind, accuracy, prompt=f"p {aspect}", **more)


def two(rewrites, paraphrases):
    """Two edits, with the accuracy of each one's rewrite and of the first of its two paraphrases."""
    rows = []
    for edit_id, rewrite, paraphrase in zip("ab", rewrites, paraphrases, strict=True):
        rows += [row(edit_id, "rewrite", rewrite), row(edit_id, "neighborhood", 1.0)]
        rows += [row(edit_id, "paraphrase", paraphrase), row(edit_id, "paraphrase", 0.0, prompt="q")]
    return rows


def many(after):
    """
    Twenty edits, before and after they are made.

    After it, all is so, half of the rewrites are said and the others named; the neighborhood of one edit fails.
    """
    rows = []
    for number in range(20):
        edit_id, first = f"{number:02}", number < 10
        rows += [
            said(edit_id, "rewrite", after, after and first, after),
            said(edit_id, "paraphrase", after, 0.0, after and 0.5),
            said(edit_id, "neighborhood", 1.0 - (after and number == 0), 0.5, 0.75),
            said(edit_id, "portability", after, after, after, "one hop"),
            said(edit_id, "portability", 0.0, 0.0, 0.0, "alias"),
            row(edit_id, "generation", None) | {"role": None, "logprob": None, "fluency": 4.5 if after else 6.0},
        ]
    return rows


@cache
def measured_twenty():
    return measured(many(0.0), many(1.0))


def measured(before, after):
    """What `eval_results.json` holds."""
    found = {"before": score(before), "after": score(after), "change": compare(before, after)}
    return found | {"protocol": found["after"]["protocol"], "n_edits": found["after"]["n_edits"]}


def measured_in_every_way():
    results = deepcopy(measured_twenty())
    for when, value in (("before", 20.0), ("after", 20.5)):
        results[when] |= {
            "perplexity": value,
            "perplexity_ci95": [value - 1, value + 1],
            "n_texts": 12,
            "n_tokens": 99,
        }
    known = {"task": "arc_easy", "metric": "acc", "before": 0.25, "after": 0.2375, "difference": -0.0125}
    unknown = {"task": "mine", "metric": "f1", "before": None, "after": 1234.5678, "difference": None}
    return results | {"tasks": [known | {"difference_stderr": 0.01234, "n": 400}, unknown | {"n": None}]}


def widest(shown):
    return max(cell_len(line) for line in shown.splitlines())


def chat_rows(after):
    """Five edits of a chat model, whose fifth near name gets the new answer, with more said than asked for."""
    rows = []
    for number in range(5):
        edit_id = str(number)
        rows += [
            said(edit_id, "rewrite", after, after and number < 3, after),
            said(edit_id, "paraphrase", 0.5, 0.0, after and number < 4),
            said(edit_id, "neighborhood", 1.0, number < 2, 1.0),
            said(edit_id, "near_name", 1.0, 1.0, not after or number < 4),
        ]
    return [found | {"stopped": True} for found in rows]


def measured_chat():
    results = measured(chat_rows(0.0), chat_rows(1.0))
    results["after"] |= {"drift": 0.1234, "drift_ci95": [0.0567, 0.2], "n_drift_prompts": 40, "n_made_probes": 2}
    return results


BEFORE, AFTER = two((0.0, 1.0), (0.0, 1.0)), two((1.0, 1.0), (1.0, 1.0))
GOLDEN = Path(__file__).parents[1] / "golden"
TABLE = (GOLDEN / "results_two_edits.txt").read_text(encoding="utf-8").removesuffix("\n")
TERMINAL = {"FORCE_COLOR": "1", "COLUMNS": "40", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}


@pytest.mark.parametrize("variables", [{}, TERMINAL])  # neither a terminal nor its colours change the text
def test_the_table_is_the_golden_file(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    results = {"two_edits": measured(BEFORE, AFTER), "everything": measured_in_every_way(), "chat": measured_chat()}
    results["before_alone"] = {"before": score(BEFORE)}  # one column, without change and diagnosis
    for name, measured_results in results.items():
        table = results_table(measured_results) + "\n"
        assert table == (GOLDEN / f"results_{name}.txt").read_text(encoding="utf-8")
        assert masked(table) == table  # as the command line prints it: "a token: ..." would look like a secret
        assert widest(table) <= WIDTH == 110
    more = {"base_model": "[bold]y", "base_model_revision": None, "protocol": "x", "tasks": []}
    assert results_table(results["two_edits"] | more) == TABLE  # what the results hold besides is ignored


def test_settings_are_named_in_the_diagnosis():
    results = measured(BEFORE, AFTER)
    shown = results_table(results, {"num_paraphrases": 15})
    assert shown != TABLE and "(`num_paraphrases` (now 15))" in " ".join(shown.split())
    expected = " ".join(diagnose(results, {"num_paraphrases": 15}))
    assert " ".join(shown.partition("Diagnosis\n")[2].replace("\n- ", " ")[2:].split()) == expected


def test_one_earlier_edit_is_singular():
    results, earlier = measured(BEFORE, AFTER), {"adapter": "first", "n_edits": 1}
    shown = results_table(results | {"revoked": {**earlier, "n_probes": 3, "back": 100.0}})
    assert "\n1 edit of first revoked; answered as before the edits: 100.0 percent of 3 prompts\n" in shown
    shown = results_table(results | {"retention": {**earlier, "before": score(BEFORE), "after": score(AFTER)}})
    assert "\n1 edit of first trained again: scores before and after\n" in shown


@pytest.mark.parametrize(
    "results", [{}, {"before": {}}, {"before": None}, {"before": {"efficacy": 1.0}}, {"before": 5}, 5]
)
def test_what_holds_no_scores_is_refused(results):
    with pytest.raises(EditError, match="results .* (nor 'after'|is missing); give what eval_results.json holds"):
        results_table(results)


def test_an_edited_model_without_scores_is_left_out():
    before = score(BEFORE)
    assert results_table({"before": before, "after": None}) == results_table({"before": before})


def cells(shown, label):
    """The cells of the first row with that label."""
    [line, *_] = [line for line in shown.splitlines() if line.startswith(f"│ {label} ")]
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_a_score_that_nothing_has_is_left_out_and_its_reason_said_once():
    before, after = ([found for found in rows if found["kind"] != "neighborhood"] for rows in (BEFORE, AFTER))
    shown = results_table(measured(before, after))
    table = shown.partition("\n└")[0]
    assert "locality" not in table and "edit score" not in table
    assert shown.count(NOTE) == 1 and NOTE in shown.partition("\nDiagnosis\n")[2]
    assert cells(shown, "efficacy") == ["50.0 (0.0 to 100.0)", "100.0 (100.0 to 100.0)", "+50.0 (p = 1.000)", "2", "2"]


def test_without_a_diagnosis_the_reason_stands_below_the_table():
    shown = results_table({"before": score([found for found in BEFORE if found["kind"] != "neighborhood"])})
    assert shown.endswith(
        f"┘\n\nNo edit score: {NOTE}. Give the edits `paraphrase_prompts` and\n`neighborhood_prompts` to measure it."
    )


def test_a_score_that_one_measurement_has_is_a_dash_in_the_other():
    after = [found for found in AFTER if found["kind"] != "neighborhood"]
    shown = results_table(measured(BEFORE, after))
    assert cells(shown, "locality") == ["100.0 (100.0 to 100.0)", "—", "", "0", "0"]
    assert cells(shown, "edit score") == ["42.9 (0.0 to 75.0)", "—", "", "2", "6"]
    assert NOTE in shown


def test_what_is_counted_by_itself_may_be_measured_once():
    results = measured(BEFORE, AFTER)
    results["before"] |= {"perplexity": 20.0, "n_texts": 12}
    assert cells(results_table(results), "perplexity") == ["20.0", "—", "", "", "12 texts"]


def test_answers_that_were_generated_after_training_only_are_a_dash_before():
    shown = results_table(
        measured([found | {"containment": None, "exact_match": None} for found in many(0.0)], many(1.0))
    )
    assert cells(shown, "exact match") == ["before", *"—————"]
    assert cells(shown, "alias") == ["before", "0.0 (0.0 to 0.0)", "—", "—", "20", "20"]


HOSTILE = ["[bold]x", "[/x]", "[link=https://x.org]y[/link]", ":smile:", r"\[x]", "[1, 2]"]


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_shown_as_it_stands(text):
    results = measured_in_every_way()
    for when in ("before", "after"):
        aspects = results[when]["portability_aspects"]
        results[when]["portability_aspects"] = {text: aspects["alias"]}
    results["tasks"] = [results["tasks"][0] | {"task": text, "metric": text}]
    shown = results_table(results)
    assert shown.count(f"│ {text} ") == 4


def test_numbers_and_names_that_fit_into_no_column_make_no_line_wider():
    results = measured_in_every_way()
    for when in ("before", "after"):
        results[when] |= {"perplexity": 1e12, "perplexity_ci95": [1e11, 1e13]}
        results[when]["portability_aspects"] = {"long " * 40: results[when]["portability_aspects"]["alias"]}
    results["tasks"][0] |= {"task": "x" * 300, "metric": "東京" * 100}
    assert widest(results_table(results)) <= WIDTH


@pytest.mark.parametrize("kind", KINDS)
def test_no_note_is_wider_than_a_screen(kind):
    rows = [found for found in AFTER if found["kind"] == kind]
    for results in ({"before": score(rows)}, measured(rows, rows)):
        assert widest(results_table(results)) <= WIDTH


FEW_SCORES = {
    "edit_score": 94.67,
    "edit_score_ci95": [90.0, 100.0],
    "portability": None,
    "n_edits": 3,
    "n_edits_scored": {"locality": 2},
    "n_probes": {"rewrite": 3, "paraphrase": 5, "neighborhood": 4, "portability": 1},
    "n_texts": 7,
    "n_drift_prompts": 40,
    "drift": 0.04567,
    "drift_ci95": [0.01, 0.1],
}
FEW_COUNTS = {
    "efficacy": (3, 3),
    "locality": (2, 4),
    "edit_score": (3, 12),
    "fluency": (3, 0),
    "perplexity": (None, 7),
    "drift": (None, 40),
    "said_exactly": (3, 3),
}


def test_scores_as_text():
    assert score_text(FEW_SCORES, "edit_score") == "94.7 (90.0 to 100.0)"
    assert score_text({"efficacy": 12.34}, "efficacy") == "12.3"
    assert score_text(FEW_SCORES, "drift") == "0.046 (0.010 to 0.100)"
    assert score_text(FEW_SCORES, "portability") == score_text(FEW_SCORES, "efficacy") == "—"
    assert change_text(None) == ""
    assert results_table({"before": score(BEFORE[:4])}).startswith("1 edit, accuracy protocol, percent")


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [
        (98.34, 0.0005, "+98.3 (p < 0.001)"),
        (-1.25, 0.001, "-1.2 (p = 0.001)"),
        (-1.25, 0.0049, "-1.2 (p = 0.005)"),
        (0.0, 1.0, "+0.0 (p = 1.000)"),
    ],
)
def test_changes_as_text(difference, p_value, expected):
    assert change_text({"difference": difference, "p_value": p_value}) == expected


@pytest.mark.parametrize(("name", "expected"), FEW_COUNTS.items())
def test_edits_and_probes_behind_a_score(name, expected):
    assert counts(FEW_SCORES, name) == expected


def test_a_table_in_markdown_escapes_names_alone():
    table = Table(["", "a", "p"], [["x|y", "<1>", "< 2"], ["z", "", "3"]], n_names=2)
    assert table.markdown(lambda text: text.replace("|", "!").replace("<", "(")) == (
        "| | a | p |\n|---|---|---|\n| x!y | (1> | < 2 |\n| z |  | 3 |"
    )
