"""What a model said before it was edited and says now, question by question, as text for the console."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from rich import table as rich_table

from hf_ftedit.evaluation.tables import WIDTH, drawn
from hf_ftedit.text import visible

# Of each kind of probe, its name and how many are shown: what a reader looks through in a minute.
SHOWN = {
    "rewrite": ("edits", 10),
    "paraphrase": ("other wordings", 5),
    "neighborhood": ("neighbors", 5),
    "near_name": ("near names", 5),
}
WIDEST = 160


class Question(NamedTuple):
    """A probe with the answers before and after, and whether the one after is as it should be."""

    prompt: str
    before: str
    after: str
    is_right: bool


def before_after_text(
    before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]], width: int | None = None
) -> str:
    """
    Questions with the own answers before and after below them, and a mark where these are as they should be.

    Args:
        before (`Mapping[str, Sequence]`):
            Predictions of the unedited model, see [`~hf_ftedit.predict`].
        after (`Mapping[str, Sequence]`):
            Those of the edited model.
        width (`int`, *optional*):
            Columns of the text; those of the terminal by default.
    """
    width = width or max(80, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDEST))
    parts = []
    for kind, (name, most) in SHOWN.items():
        if questions := _questions(kind, before, after):
            some = f", {most} of {len(questions)}" if len(questions) > most else ""
            parts += [f"{name}{some}:", drawn(_grid(questions[:most]), width)]
    return "\n".join(line.rstrip() for part in parts for line in part.splitlines())


def _grid(questions: Sequence[Question]) -> rich_table.Table:
    """Each question with its answers below it."""
    # Side by side, answers of thirty tokens would be cut, or wrapped word by word.
    grid = rich_table.Table.grid(padding=(0, 1))
    grid.add_column(width=2)
    grid.add_column(width=6)
    grid.add_column(overflow="fold")
    for question in questions:
        prompt, old, new = (visible(" ".join(text.split())) for text in question[:3])
        grid.add_row("✓" if question.is_right else "✗", "asked", prompt)
        grid.add_row("", "before", old)
        grid.add_row("", "now", "the same" if new == old else new)
    return grid


def _questions(kind: str, before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> list[Question]:
    """The questions of a kind, the first one of each edit in front."""
    old = dict(zip(before["probe"], before["generated"], strict=True))
    role = "true" if kind == "neighborhood" else "new"
    by_edit: dict[str, list[Question]] = {}
    names = ("kind", "role", "edit_id", "probe", "generated", "containment")
    for row in zip(*(after[name] for name in names), strict=True):
        if row[:2] == (kind, role):
            edit_id, prompt, answer, is_right = row[2:]
            by_edit.setdefault(edit_id, []).append(Question(prompt, old.get(prompt) or "", answer, bool(is_right)))
    turns = chain.from_iterable(zip_longest(*by_edit.values()))
    return [question for question in turns if question is not None]
