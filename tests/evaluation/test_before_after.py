"""What was said before and is said now, as a table that fits on a screen."""

import pytest
from rich.cells import cell_len

from hf_ftedit.evaluation.before_after import SHOWN, before_after_text


def columns(rows):
    names = ("edit_id", "kind", "role", "probe", "generated", "containment")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


BEFORE = columns(
    [
        ("a", "rewrite", "new", "Who leads X?", "I do not know.", False),
        ("a", "neighborhood", "true", "Who leads Y?", "[b]Jensen[/b]\nHuang leads it.", True),
        ("a", "near_name", "new", "Who leads Xs?", "A man " + 40 * "who ", True),
    ]
)
AFTER = columns(
    [
        ("a", "rewrite", "new", "Who leads X?", "Elena", True),
        ("a", "rewrite", "true", "Who leads X?", "Elena", False),
        ("a", "neighborhood", "true", "Who leads Y?", "Jensen Huang.", True),
        ("a", "neighborhood", "new", "Who leads Y?", "Jensen Huang.", False),
        ("a", "near_name", "new", "Who leads Xs?", "Elena", False),
        ("a", "generation", "", "X is", None, None),
    ]
)


def test_answers_stand_in_full_below_their_question():
    text = before_after_text(BEFORE, AFTER, 80)
    assert text.splitlines()[:9] == [
        "edits:",
        "✓  asked  Who leads X?",
        "   before I do not know.",
        "   now    Elena",
        "neighbors:",
        "✓  asked  Who leads Y?",
        "   before [b]Jensen[/b] Huang leads it.",
        "   now    Jensen Huang.",
        "near names:",
    ]
    assert text.splitlines()[9] == "✗  asked  Who leads Xs?" and text.endswith("\n   now    Elena")
    assert text.count("who") == 40 and "…" not in text


def test_an_answer_that_was_cut_goes_on():
    text = before_after_text({**BEFORE, "stopped": [True, True, False]}, {**AFTER, "stopped": 6 * [None]}, 80)
    assert text.count("…") == 1 and "who …\n   now    Elena" in text


def test_an_answer_that_stayed_is_not_repeated():
    assert [line.split() for line in before_after_text(BEFORE, BEFORE, 80).splitlines()[2:4]] == [
        ["before", "I", "do", "not", "know."], ["now", "the", "same"]
    ]  # fmt: skip


def test_a_text_sampled_after_the_same_prompt_is_no_answer():
    sampled = columns([("a", "generation", "", probe, None, None) for probe in BEFORE["probe"]])
    before = {name: [*values, *sampled[name]] for name, values in BEFORE.items()}
    assert before_after_text(before, AFTER, 80) == before_after_text(BEFORE, AFTER, 80)


def test_text_without_spaces_is_wrapped_by_its_width():
    after = {**AFTER, "generated": [text and 60 * "答" for text in AFTER["generated"]]}
    text = before_after_text(BEFORE, after, 80)
    assert text.count("答") == 180 and max(map(cell_len, text.splitlines())) <= 80


def test_of_many_the_first_of_each_edit_are_shown():
    rows = [
        (edit, kind, "true" if kind == "neighborhood" else "new", f"{edit} {kind} {number}", "x", True)
        for kind in SHOWN
        for edit in map(str, range(3))
        for number in range(4)
    ]
    text = before_after_text(columns(rows), columns(rows), 120)
    assert "edits, 10 of 12:" in text and "neighbors, 5 of 12:" in text
    shown = [line.split()[2:] for line in text.splitlines() if " neighborhood " in line]
    assert shown == [[str(n % 3), "neighborhood", str(n // 3)] for n in range(5)]


@pytest.mark.parametrize("columns_of_terminal, widest", [("60", 80), ("130", 130), ("500", 160)])
def test_it_is_as_wide_as_the_terminal(monkeypatch, columns_of_terminal, widest):
    monkeypatch.setenv("COLUMNS", columns_of_terminal)
    assert max(map(cell_len, before_after_text(BEFORE, AFTER).splitlines())) <= widest
