"""The table on the screen."""

from hf_ftedit.report import results_table

BEFORE = {
    "protocol": "accuracy",
    "n_edits": 2,
    "edit_score": 0.0,
    "edit_score_ci95": [0.0, 0.0],
    "efficacy": 0.0,
    "efficacy_ci95": [0.0, 0.0],
    "generalization": 12.34,
    "generalization_ci95": [5.0, 20.06],
    "locality": 100.0,
    "locality_ci95": [100.0, 100.0],
    "portability": None,
    "portability_ci95": None,
    "edit_score_note": None,
}
AFTER = {**BEFORE, "edit_score": 97.5, "edit_score_ci95": [90.0, 100.0], "efficacy": 100.0}
NOTE = "no neighborhood probe: locality is undefined"
UNDEFINED = {"edit_score": None, "edit_score_ci95": None, "locality": None, "locality_ci95": None}

TABLE = """\
2 edits, accuracy protocol, percent (95 % interval)
┏━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┓
┃                ┃ before                 ┃ after                  ┃
┡━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━┩
│ edit score     │ 0.0 (0.0 to 0.0)       │ 97.5 (90.0 to 100.0)   │
│ efficacy       │ 0.0 (0.0 to 0.0)       │ 100.0 (0.0 to 0.0)     │
│ generalization │ 12.3 (5.0 to 20.1)     │ 12.3 (5.0 to 20.1)     │
│ locality       │ 100.0 (100.0 to 100.0) │ 100.0 (100.0 to 100.0) │
└────────────────┴────────────────────────┴────────────────────────┘"""


def test_before_and_after():
    assert results_table({"before": BEFORE, "after": AFTER}) == TABLE


def test_one_measurement_is_one_column():
    lines = results_table({"before": BEFORE}).splitlines()
    assert lines[2].split() == ["┃", "┃", "before", "┃"]
    assert lines[4].split("│")[1:3] == [" edit score     ", " 0.0 (0.0 to 0.0)       "]


def test_what_is_undefined_is_a_dash_and_said_once():
    undefined = {**UNDEFINED, "edit_score_note": NOTE}
    shown = results_table({"before": {**BEFORE, **undefined}, "after": {**AFTER, **undefined}})
    assert "locality" not in shown.split("└")[0]  # a row without any value is left out
    assert shown.endswith(f"\nNo edit score: {NOTE}. Such probes in the edits would tell.")
    assert shown.count("No edit score") == 1
    shown = results_table({"before": BEFORE, "after": {**AFTER, **undefined}})
    assert "│ locality       │ 100.0 (100.0 to 100.0) │ —" in shown


def test_what_the_results_hold_besides_is_ignored():
    assert results_table({"before": BEFORE, "after": AFTER, "protocol": "x", "base_model": "[bold]y"}) == TABLE
