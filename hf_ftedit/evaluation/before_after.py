"""What a model said before it was edited and says now, question by question, as text for the console."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, TypeAlias

from rich import table as rich_table

from hf_ftedit.evaluation.tables import WIDTH, Table, drawn
from hf_ftedit.text import visible

# Of each kind of probe, its name and how many are shown: what a reader looks through in a minute.
SHOWN = {"rewrite": ("edits", 10), "paraphrase": ("other wordings", 5)}
SHOWN |= {"neighborhood": ("neighbors", 5), "near_name": ("near names", 5)}
WIDEST = 160


# A probe with the answers before and after, and whether the one after is as it should be.
Question: TypeAlias = tuple[str, str, str, bool]


def before_after_text(
    before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]], width: int | None = None
) -> str:
    """
    Questions with the own answers before and after below them, and a mark where these are as they should be.

    `before` and `after` are predictions of the unedited and the edited model, see [`~hf_ftedit.predict`]; `width` is
    in columns, by default those of the terminal.
    """
    width = width or max(80, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDEST))
    parts = []
    for kind, (name, most) in SHOWN.items():
        if questions := _questions(kind, before, after):
            some = f", {most} of {len(questions)}" if len(questions) > most else ""
            # Side by side, answers of thirty tokens would be cut, or wrapped word by word.
            columns = (rich_table.Column(width=2), rich_table.Column(width=6), rich_table.Column(overflow="fold"))
            grid = rich_table.Table.grid(*columns, padding=(0, 1))
            for *texts, is_right in questions[:most]:
                prompt, old, new = (visible(" ".join(text.split())) for text in texts)
                grid.add_row("✓" if is_right else "✗", "asked", prompt)
                grid.add_row("", "before", old)
                grid.add_row("", "now", "the same" if new == old else new)
            parts += [f"{name}{some}:", drawn(grid, width)]
    return "\n".join(line.rstrip() for part in parts for line in part.splitlines())


def questions_table(before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> Table:
    """The same questions as a table, all of its columns texts."""
    rows = []
    for kind, (name, most) in SHOWN.items():
        for prompt, old, new, is_right in _questions(kind, before, after)[:most]:
            rows.append([f"{'✓' if is_right else '✗'} {name}", prompt, old, "the same" if new == old else new])
    return Table(["", "asked", "before", "now"], rows, n_names=4)


def _questions(kind: str, before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> list[Question]:
    """The questions of a kind, the first one of each edit in front."""
    old = dict(zip(before["probe"], before["generated"], strict=True))
    role = "true" if kind == "neighborhood" else "new"
    by_edit: dict[str, list[Question]] = {}
    names = ("kind", "role", "edit_id", "probe", "generated", "containment")
    for row in zip(*(after[name] for name in names), strict=True):
        if row[:2] == (kind, role):
            edit_id, prompt, answer, is_right = row[2:]
            by_edit.setdefault(edit_id, []).append((prompt, old.get(prompt) or "", answer, bool(is_right)))
    turns = chain.from_iterable(zip_longest(*by_edit.values()))
    return [question for question in turns if question is not None]
