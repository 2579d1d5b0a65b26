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


def test_each_question_has_its_line():
    lines = before_after_text(BEFORE, AFTER, 80).splitlines()
    assert [line.split() for line in lines[:1]] == [["question", "before", "now"]]
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "edits:",
        "Who leads X? I do not know. Elena ✓",
        "neighbors:",
        "Who leads Y? [b]Jensen[/b] Huang… Jensen Huang. ✓",
        "near names:",
        "Who leads Xs? A man who who who w… Elena ✗",
    ]


def test_of_many_the_first_of_each_edit_are_shown():
    rows = [
        (edit, kind, "true" if kind == "neighborhood" else "new", f"{edit} {kind} {number}", "x", True)
        for kind in SHOWN
        for edit in map(str, range(6))
        for number in range(3)
    ]
    text = before_after_text(columns(rows), columns(rows), 120)
    assert len(text.splitlines()) <= 46
    assert "edits, 16 of 18:" in text and "neighbors, 8 of 18:" in text
    shown = [line.split()[:3] for line in text.splitlines() if " neighborhood " in line]
    assert shown == [[str(n % 6), "neighborhood", str(n // 6)] for n in range(8)]


@pytest.mark.parametrize("columns_of_terminal, widest", [("60", 80), ("130", 130), ("500", 160)])
def test_it_is_as_wide_as_the_terminal(monkeypatch, columns_of_terminal, widest):
    monkeypatch.setenv("COLUMNS", columns_of_terminal)
    assert max(map(cell_len, before_after_text(BEFORE, AFTER).splitlines())) <= widest
