"""The tables on the screen: scores of hand-made predictions, as `eval_results.json` holds them."""

import pytest
from rich.cells import cell_len

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.diagnosis import diagnose
from hf_ftedit.evaluation.scoring import compare, score
from hf_ftedit.evaluation.tables import WIDTH, Table, change_text, counts, edits_text, results_table, score_text

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


def measured(before, after):
    """What `eval_results.json` holds."""
    found = {"before": score(before), "after": score(after), "change": compare(before, after)}
    return found | {"protocol": found["after"]["protocol"], "n_edits": found["after"]["n_edits"]}


def measured_in_every_way():
    results = measured(many(0.0), many(1.0))
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


BEFORE, AFTER = two((0.0, 1.0), (0.0, 1.0)), two((1.0, 1.0), (1.0, 1.0))
TABLE = """\
2 edits, accuracy protocol, percent (95 % interval)
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━┓
┃                ┃ before                 ┃ after                  ┃ change            ┃ edits ┃ probes ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━┩
│ edit score     │ 42.9 (0.0 to 75.0)     │ 75.0 (75.0 to 75.0)    │ +32.1 (p = 1.000) │ 2     │ 8      │
│ efficacy       │ 50.0 (0.0 to 100.0)    │ 100.0 (100.0 to 100.0) │ +50.0 (p = 1.000) │ 2     │ 2      │
│ generalization │ 25.0 (0.0 to 50.0)     │ 50.0 (50.0 to 50.0)    │ +25.0 (p = 1.000) │ 2     │ 4      │
│ locality       │ 100.0 (100.0 to 100.0) │ 100.0 (100.0 to 100.0) │ +0.0 (p = 1.000)  │ 2     │ 2      │
└────────────────┴────────────────────────┴────────────────────────┴───────────────────┴───────┴────────┘

Diagnosis
- Generalization is low (50.0) while efficacy is 100.0: the wording was learnt rather than the fact.
  Give more paraphrases (`num_paraphrases`) or more varied ones (`paraphrase_strategy`; `relation`
  needs subjects and a locality pool).
- Only 2 edits were measured: the intervals are wide, and rough at that."""
EVERYTHING = """\
20 edits, accuracy protocol, percent (95 % interval)
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━┓
┃                ┃ before                 ┃ after                  ┃ change             ┃ edits ┃ probes   ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━┩
│ edit score     │ 0.0 (0.0 to 0.0)       │ 98.3 (94.4 to 100.0)   │ +98.3 (p < 0.001)  │ 20    │ 60       │
│ efficacy       │ 0.0 (0.0 to 0.0)       │ 100.0 (100.0 to 100.0) │ +100.0 (p < 0.001) │ 20    │ 20       │
│ generalization │ 0.0 (0.0 to 0.0)       │ 100.0 (100.0 to 100.0) │ +100.0 (p < 0.001) │ 20    │ 20       │
│ locality       │ 100.0 (100.0 to 100.0) │ 95.0 (85.0 to 100.0)   │ -5.0 (p = 1.000)   │ 20    │ 20       │
│ portability    │ 0.0 (0.0 to 0.0)       │ 50.0 (50.0 to 50.0)    │ +50.0 (p < 0.001)  │ 20    │ 40       │
│ fluency        │ 600.0 (600.0 to 600.0) │ 450.0 (450.0 to 450.0) │ -150.0 (p < 0.001) │ 20    │ 20       │
│ perplexity     │ 20.0 (19.0 to 21.0)    │ 20.5 (19.5 to 21.5)    │                    │       │ 12 texts │
└────────────────┴────────────────────────┴────────────────────────┴────────────────────┴───────┴──────────┘

By protocol, percent; exact match and containment are of the model's own answers
┏━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━┓
┃             ┃        ┃ edit score ┃ efficacy ┃ generalization ┃ locality ┃ portability ┃
┡━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━┩
│ accuracy    │ before │ 0.0        │ 0.0      │ 0.0            │ 100.0    │ 0.0         │
│ accuracy    │ after  │ 98.3       │ 100.0    │ 100.0          │ 95.0     │ 50.0        │
│ exact match │ before │ 0.0        │ 0.0      │ 0.0            │ 50.0     │ 0.0         │
│ exact match │ after  │ 0.0        │ 50.0     │ 0.0            │ 50.0     │ 50.0        │
│ containment │ before │ 0.0        │ 0.0      │ 0.0            │ 75.0     │ 0.0         │
│ containment │ after  │ 69.2       │ 100.0    │ 50.0           │ 75.0     │ 50.0        │
└─────────────┴────────┴────────────┴──────────┴────────────────┴──────────┴─────────────┘

Portability by aspect, percent
┏━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━┓
┃         ┃        ┃ portability            ┃ exact match ┃ containment ┃ edits ┃ probes ┃
┡━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━┩
│ alias   │ before │ 0.0 (0.0 to 0.0)       │ 0.0         │ 0.0         │ 20    │ 20     │
│ alias   │ after  │ 0.0 (0.0 to 0.0)       │ 0.0         │ 0.0         │ 20    │ 20     │
│ one hop │ before │ 0.0 (0.0 to 0.0)       │ 0.0         │ 0.0         │ 20    │ 20     │
│ one hop │ after  │ 100.0 (100.0 to 100.0) │ 100.0       │ 100.0       │ 20    │ 20     │
└─────────┴────────┴────────────────────────┴─────────────┴─────────────┴───────┴────────┘

Tasks of lm-evaluation-harness
┏━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━┓
┃ task     ┃ metric ┃ before ┃ after  ┃ change          ┃ n   ┃
┡━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━┩
│ arc_easy │ acc    │ 0.25   │ 0.2375 │ -0.0125 ± 0.012 │ 400 │
│ mine     │ f1     │        │ 1235   │                 │     │
└──────────┴────────┴────────┴────────┴─────────────────┴─────┘

Diagnosis
- Fluency fell from 600 to 450: generated text repeats itself. Lower the `learning_rate` or the
  `num_train_epochs`.
- Only 20 edits were measured: the intervals are wide, and rough at that."""
ONE = """\
2 edits, accuracy protocol, percent (95 % interval)
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━┓
┃                ┃ before                 ┃ edits ┃ probes ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━┩
│ edit score     │ 42.9 (0.0 to 75.0)     │ 2     │ 8      │
│ efficacy       │ 50.0 (0.0 to 100.0)    │ 2     │ 2      │
│ generalization │ 25.0 (0.0 to 50.0)     │ 2     │ 4      │
│ locality       │ 100.0 (100.0 to 100.0) │ 2     │ 2      │
└────────────────┴────────────────────────┴───────┴────────┘"""


def test_before_and_after():
    assert results_table(measured(BEFORE, AFTER)) == TABLE


def test_everything_that_can_be_measured():
    assert results_table(measured_in_every_way()) == EVERYTHING


def test_one_measurement_is_one_column_without_change_and_diagnosis():
    assert results_table({"before": score(BEFORE)}) == ONE


def test_what_the_results_hold_besides_is_ignored():
    more = {"base_model": "[bold]y", "base_model_revision": None, "protocol": "x", "tasks": []}
    assert results_table(measured(BEFORE, AFTER) | more) == TABLE


def test_settings_are_named_in_the_diagnosis():
    results = measured(BEFORE, AFTER)
    shown = results_table(results, {"num_paraphrases": 15})
    assert shown != TABLE and "(`num_paraphrases` (now 15))" in " ".join(shown.split())
    expected = " ".join(diagnose(results, {"num_paraphrases": 15}))
    assert " ".join(shown.partition("Diagnosis\n")[2].replace("\n- ", " ")[2:].split()) == expected


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


def test_answers_that_were_generated_after_training_only_are_a_dash_before():
    shown = results_table(measured([found | {"containment": None} for found in many(0.0)], many(1.0)))
    assert cells(shown, "exact match") == ["before", *"—————"]
    assert cells(shown, "alias") == ["before", "0.0 (0.0 to 0.0)", "—", "—", "20", "20"]


@pytest.mark.parametrize(
    "p_value, shown", [(0.0005, "p < 0.001"), (0.001, "p = 0.001"), (0.0049, "p = 0.005"), (0.5, "p = 0.500")]
)
def test_a_p_value_is_shown_to_a_thousandth(p_value, shown):
    results = measured(BEFORE, AFTER)
    results["change"]["efficacy"] |= {"p_value": p_value, "difference": -1.25}
    assert cells(results_table(results), "efficacy")[2] == f"-1.2 ({shown})"


def test_one_edit_is_singular():
    assert results_table({"before": score(BEFORE[:4])}).startswith("1 edit, accuracy protocol, percent")


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


def test_neither_a_terminal_nor_its_colours_change_the_text(monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    assert results_table(measured(BEFORE, AFTER)) == TABLE


def huge(results):
    """Numbers that fit into no column, and names that fit into no line."""
    for when in ("before", "after"):
        results[when] |= {"perplexity": 1e12, "perplexity_ci95": [1e11, 1e13]}
        results[when]["portability_aspects"] = {"long " * 40: results[when]["portability_aspects"]["alias"]}
    results["tasks"][0] |= {"task": "x" * 300, "metric": "東京" * 100}
    return results


@pytest.mark.parametrize(
    "results",
    [
        measured_in_every_way,
        lambda: huge(measured_in_every_way()),
        lambda: measured(BEFORE, AFTER),
        lambda: {"before": score(BEFORE)},
    ],
)
def test_no_line_is_wider_than_a_screen(results):
    assert widest(results_table(results())) <= WIDTH == 110


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
}


def test_scores_as_text():
    assert score_text(FEW_SCORES, "edit_score") == "94.7 (90.0 to 100.0)"
    assert score_text({"efficacy": 12.34}, "efficacy") == "12.3"
    assert score_text(FEW_SCORES, "portability") == score_text(FEW_SCORES, "efficacy") == "—"


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [(98.34, 0.0004, "+98.3 (p < 0.001)"), (-1.25, 0.001, "-1.2 (p = 0.001)"), (0.0, 1.0, "+0.0 (p = 1.000)")],
)
def test_changes_as_text(difference, p_value, expected):
    assert change_text({"difference": difference, "p_value": p_value}) == expected


def test_no_change_is_no_text():
    assert change_text(None) == ""


def test_a_number_of_edits_as_text():
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
    assert counts(FEW_SCORES, name) == expected


def test_results_without_scores_are_an_error_that_names_the_remedy():
    with pytest.raises(EditError, match="neither 'before' nor 'after'; give what eval_results.json holds"):
        results_table({"protocol": "accuracy"})


def test_a_table_in_markdown_escapes_names_alone():
    table = Table(["", "a", "p"], [["x|y", "<1>", "< 2"], ["z", "", "3"]], n_names=2)
    assert table.markdown(lambda text: text.replace("|", "!").replace("<", "(")) == (
        "| | a | p |\n|---|---|---|\n| x!y | (1> | < 2 |\n| z |  | 3 |"
    )
