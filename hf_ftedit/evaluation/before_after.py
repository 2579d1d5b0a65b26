"""What a model said before it was edited and says now, question by question, as text for the console."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from rich import box
from rich import table as rich_table

from hf_ftedit.evaluation.tables import WIDTH, drawn

# Of each kind of probe, its name and how many are shown: all together should fit on a screen.
SHOWN = {
    "rewrite": ("edits", 16),
    "paraphrase": ("other wordings", 8),
    "neighborhood": ("neighbors", 8),
    "near_name": ("near names", 8),
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
    A table of own answers before and after, with a mark where they are as they should be; the longest are cut.

    Args:
        before (`Mapping[str, Sequence]`):
            Predictions of the unedited model, see [`~hf_ftedit.predict`].
        after (`Mapping[str, Sequence]`):
            Those of the edited model.
        width (`int`, *optional*):
            Columns of the text; those of the terminal by default.
    """
    width = width or max(80, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDEST))
    table = rich_table.Table(box=box.SIMPLE_HEAD, show_edge=False, expand=True)
    for name, share in (("question", 4), ("before", 3), ("now", 3)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=share)
    table.add_column("", width=1)
    for kind, (name, most) in SHOWN.items():
        if not (questions := _questions(kind, before, after)):
            continue
        shown = questions[:most]
        first = "" if len(shown) == len(questions) else f", {len(shown)} of {len(questions)}"
        table.add_row(f"{name}{first}:")
        for prompt, old, new, is_right in shown:
            cells = (" ".join(text.split()) for text in (prompt, old, new))
            table.add_row(f"  {next(cells)}", *cells, "✓" if is_right else "✗")
    return drawn(table, width)


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
