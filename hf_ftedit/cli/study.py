"""A study's results: a row for each run, as Parquet and Markdown, and plots of what each setting changes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from hf_ftedit.evaluation import SCORES, Table, score_text
from hf_ftedit.files import moved_in, write_text
from hf_ftedit.hub import figure_of, markdown_text, png_of

ABILITIES = ("known_facts", "perplexity")  # that the unedited model has too
COSTS = ("rows", "train_seconds", "seconds", "peak_memory_mb")
PARTS = ("edit_score", "efficacy", "generalization", "locality")
# Columns of results that options of `train` have the names of: a file of facts, and what judges an answer.
TAKEN = ("known_facts", "protocol")
COLORS = ("#111827", "#2563eb", "#d97706", "#059669")


def column_of(setting: str) -> str:
    """The name of the column with the values of a setting."""
    return f"{setting}_setting" if setting in TAKEN else setting


def row_of(name: str, varied: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's row: its varied settings, scores with their intervals, costs, and its error where it failed."""
    before, after = ((record.get("results") or {}).get(when) or {} for when in ("before", "after"))
    plain = (str, int, float, bool, NoneType)
    row: dict[str, Any] = {"run": name}
    row |= {column_of(key): value if isinstance(value, plain) else json.dumps(value) for key, value in varied.items()}
    for score in SCORES:
        low, high = after.get(f"{score}_ci95") or (None, None)
        row |= {score: after.get(score), f"{score}_low": low, f"{score}_high": high}
    row |= {f"{score}_before": before.get(score) for score in ABILITIES}
    row |= {f"drift_{sort}": value for sort, value in (after.get("drift_by_sort") or {}).items()}
    aspects = (after.get("portability_aspects") or {}).items()
    row |= {f"portability_{aspect}": scores.get("portability") for aspect, scores in aspects}
    row |= {"protocol": after.get("protocol"), "n_edits": after.get("n_edits")}
    return row | {cost: record.get(cost) for cost in COSTS} | {"error": record.get("error")}


def write_study(folder: Path, rows: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> str:
    """
    Write `results.parquet`, `results.md`, a `plot-*.png` for each of the `varied` settings, and one of the best.

    Returned is a table for the console, without intervals.
    """
    import pandas as pd

    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    for name in table.columns.intersection(varied):
        # A column of Parquet has one type, and a grid numbers beside words, such as strength: [1, auto].
        if pd.api.types.infer_dtype(table[name]).startswith("mixed"):
            table[name] = table[name].map(str, na_action="ignore")
    done = table[table["train_seconds"].notna()] if "train_seconds" in table else table[:0]
    names = [name for name in varied if name in done and name != "seed"] if len(done) else []
    # A plot would leave out what the grid gives as null.
    done = done.astype(dict.fromkeys(names, object)).fillna(dict.fromkeys(names, "default"))
    with moved_in(folder, {file.name for file in folder.glob("plot-*.png")}) as new:
        table.to_parquet(new / "results.parquet")
        write_text(new / "results.md", study_markdown(table, varied))
        for name in names:
            (new / f"plot-{name}.png").write_bytes(setting_plot(done, name))
        if len(done) and "edit_score" in table:
            (new / "plot-front.png").write_bytes(front_plot(done[done["edit_score"].notna()], names))
    return study_table(table, varied).text()


def study_markdown(table: Any, varied: Sequence[str]) -> str:
    """The table as Markdown: the varied settings, the scores with their intervals, costs and errors."""
    before = [f"{score}_before" for score in ABILITIES]
    shown = [name for name in (*varied, *SCORES, *before, *COSTS, "error") if name in table]
    rows = [[_cell(row, name, markdown_text) for name in shown] for _, row in table.iterrows()]
    return Table(shown, rows, n_names=0).markdown(markdown_text) + "\n"


def study_table(table: Any, varied: Sequence[str]) -> Table:
    """The varied settings, the scores alone, seconds and errors: as much as fits on a screen."""
    shown = [name for name in (*varied, *SCORES, "train_seconds", "error") if name in table]
    # The columns of the intervals are left out, and so are they in the cells.
    rows = [[_cell(row, name, str) for name in shown] for _, row in table[shown].iterrows()]
    return Table([name.replace("_", " ").replace("seconds", "s") for name in shown], rows)


def _cell(row: Any, name: str, escape: Callable[[str], str]) -> str:
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None or value != value:  # NaN
        return "—"
    if name in SCORES:
        return score_text({name: value, f"{name}_ci95": None if low is None or low != low else (low, high)}, name)
    if isinstance(value, float):
        # Of a column in which a run that failed has none, whole numbers are floats too.
        return f"{value:.0f}" if name == "rows" else f"{value:.1f}" if name in COSTS else f"{value:g}"
    return escape(str(value))


def setting_plot(table: Any, name: str) -> bytes:
    """What a setting changes: score and its parts, drift, training time; a point for each run, lines for the means."""
    measured = {"percent": PARTS, "drift, nats a token": ("drift",), "training, s": ("train_seconds",)}
    panels = [(title, [column for column in columns if column in table]) for title, columns in measured.items()]
    panels = [(title, columns) for title, columns in panels if columns]
    values = list(dict.fromkeys(table[name]))  # names in the order of the grid
    values = values if any(isinstance(value, str) for value in values) else sorted(values)
    places = {value: place for place, value in enumerate(values)}
    figure, axes = figure_of(4.4 * max(len(panels), 1.3), 3.6, len(panels))
    for (title, columns), each in zip(panels, axes, strict=True):
        for column, color in zip(columns, COLORS, strict=False):
            each.scatter(table[name].map(places), table[column], s=14, color=color, alpha=0.5)
            means = table.groupby(name)[column].mean().reindex(values)
            each.plot(range(len(values)), means, color=color, linewidth=1.4, label=column.replace("_", " "))
        labels = [str(value) for value in values]
        is_long = sum(map(len, labels)) > 40
        each.set_xticks(range(len(values)), labels, **{"rotation": 60, "ha": "right"} if is_long else {})
        each.set(xlabel=name, ylabel=title)
        if len(columns) > 1:
            each.legend(frameon=False, fontsize=8)
    return png_of(figure)


def front_plot(table: Any, names: Sequence[str]) -> bytes:
    """Edit score against training time: each run a point, and by name the means over seeds that none beats in both."""
    axis = ["train_seconds", "edit_score"]
    figure, [axes] = figure_of(5.72, 3.6)
    axes.scatter(table[axis[0]], table[axis[1]], s=18, color="#b0b7c3")
    front = front_of(table.groupby(list(names), sort=False)[axis].mean().reset_index() if names else table)
    axes.plot(front[axis[0]], front[axis[1]], "o-", color="#2563eb", markersize=5, linewidth=1.2)
    for place, (_, row) in enumerate(front.iterrows()):
        text, below = ", ".join(str(row[name]) for name in names), place % 2
        axes.annotate(text, row[axis], fontsize=7, xytext=(4, -10 if below else 5), textcoords="offset points")
    axes.margins(0.15)
    axes.set(xlabel="training, s", ylabel="edit score, percent")
    return png_of(figure)


def front_of(table: Any) -> Any:
    """The rows of which none has a higher edit score in no more training time, the fastest first."""
    ordered = table.sort_values(["train_seconds", "edit_score"], ascending=[True, False])
    return ordered[ordered["edit_score"] > ordered["edit_score"].cummax().shift(fill_value=-1.0)]
