"""What a model said before it was edited and says now, question by question, as text for the console."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

from rich import table as rich_table

from hf_ftedit.evaluation.tables import WIDTH, Table, drawn
from hf_ftedit.text import visible

# Of each kind of probe, its name and how many are shown: what a reader looks through in a minute.
SHOWN = {"rewrite": ("edits", 10), "paraphrase": ("other wordings", 5)}
SHOWN |= {"neighborhood": ("neighbors", 5), "near_name": ("near names", 5)}
WIDEST = 160
Columns: TypeAlias = Mapping[str, Sequence[Any]]  # of predictions


def before_after_text(before: Columns, after: Columns, width: int | None = None) -> str:
    """
    Questions with the own answers before and after below them, and a mark where these are as they should be.

    `before` and `after` are predictions of the unedited and the edited model, see [`~hf_ftedit.predict`]; `width` is
    in columns, by default those of the terminal.
    """
    width = width or max(80, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDEST))
    parts = []
    for name, number, rows in _questions(before, after):
        some = f", {len(rows)} of {number}" if number > len(rows) else ""
        # Side by side, answers of thirty tokens would be cut, or wrapped word by word.
        columns = (rich_table.Column(width=2), rich_table.Column(width=6), rich_table.Column(overflow="fold"))
        grid = rich_table.Table.grid(*columns, padding=(0, 1))
        for mark, *texts in rows:
            for cells in zip((mark, "", ""), ("asked", "before", "now"), texts, strict=True):
                grid.add_row(*cells)
        parts += [f"{name}{some}:", drawn(grid, width)]
    return "\n".join(line.rstrip() for part in parts for line in part.splitlines())


def questions_table(before: Columns, after: Columns) -> Table:
    """The same questions as a table, all of its columns texts."""
    kinds = _questions(before, after)
    rows = [[f"{mark} {name}", *texts] for name, _, rows in kinds for mark, *texts in rows]
    return Table(["", "asked", "before", "now"], rows, n_names=4)


def _questions(before: Columns, after: Columns) -> Iterator[tuple[str, int, list[list[str]]]]:
    """Of each kind its name, how many questions there are, and those to show: mark, prompt, old and new answer."""
    # Texts sampled after `generation_prompts`, which may be the probes' own, are rows without an answer.
    old = {probe: text for probe, text in zip(before["probe"], _answers(before), strict=True) if text}
    columns = *(after[name] for name in ("kind", "role", "edit_id", "probe")), _answers(after), after["containment"]
    answers = list(zip(*columns, strict=True))
    for kind, (name, most) in SHOWN.items():
        by_edit: dict[str, list[list[str]]] = {}
        role = "true" if kind == "neighborhood" else "new"
        for edit_id, prompt, new, is_right in (row[2:] for row in answers if row[:2] == (kind, role)):
            texts = [visible(" ".join(text.split())) for text in (prompt, old.get(prompt, ""), new)]
            texts[2] = "the same" if texts[2] == texts[1] else texts[2]
            by_edit.setdefault(edit_id, []).append(["✓" if is_right else "✗", *texts])
        # The first one of each edit in front.
        turns = [row for turn in zip_longest(*by_edit.values()) for row in turn if row is not None]
        if turns:
            yield name, len(turns), turns[:most]


def _answers(predictions: Columns) -> list[str]:
    """Own answers; an ellipsis ends one that went on when it was cut."""
    ended = predictions.get("stopped") or [None] * len(predictions["generated"])
    pairs = zip(predictions["generated"], ended, strict=True)
    return [f"{text} …" if text and has_ended is False else text or "" for text, has_ended in pairs]
