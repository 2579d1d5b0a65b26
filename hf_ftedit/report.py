"""Results as a table for people."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_ftedit.card import SCORES, score_text


def results_table(results: dict[str, Any]) -> str:
    """
    Scores as text: a row for each score, a column for each measurement.

    Args:
        results (`dict`):
            Scores by `"before"` and, where there is an edited model, `"after"`, see [`~hf_ftedit.scoring.score`].
    """
    measured = [when for when in ("before", "after") if when in results]
    first = results[measured[-1]]
    title = f"{first['n_edits']} edits, {first['protocol']} protocol, percent (95 % interval)"
    table = Table("", *measured, title=title, title_justify="left")
    for name, label in SCORES.items():
        if any(results[when][name] is not None for when in measured):
            table.add_row(label, *(score_text(results[when], name) for when in measured))
    for note in dict.fromkeys(results[when].get("edit_score_note") for when in measured):
        if note:
            table.caption = note
    out = Console(file=io.StringIO(), width=100)
    out.print(table)
    return out.file.getvalue().rstrip()  # type: ignore[attr-defined]
