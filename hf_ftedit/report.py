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
    edits = "1 edit" if first["n_edits"] == 1 else f"{first['n_edits']} edits"
    title = f"{edits}, {first['protocol']} protocol, percent (95 % interval)"
    table = Table("", *measured)
    for name, label in SCORES.items():
        if any(results[when][name] is not None for when in measured):
            table.add_row(label, *(score_text(results[when], name) for when in measured))
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    notes = dict.fromkeys(results[when]["edit_score_note"] for when in measured if results[when]["edit_score_note"])
    remarks = [f"No edit score: {note}. Such probes in the edits would tell." for note in notes]
    return "\n".join([title, out.getvalue().rstrip(), *remarks])
