"""Scores before and after as a picture: plain data to the bytes of a PNG file."""

import io
from typing import Any

from hf_ftedit.evaluation import SCORES, protocol_text
from hf_ftedit.text import counted

# Those in percent.
NAMES = ("edit_score", "efficacy", "said_exactly", "generalization", "locality", "near_names", "portability")
COLORS = {"before": "#b0b7c3", "after": "#2563eb"}
BAR = 0.36  # height, in rows


def scores_plot(results: dict[str, Any]) -> bytes:
    """Draw a bar for each score before and after, with its 95 % interval, from 0 to 100: the bytes of a PNG file."""
    from matplotlib.patches import Patch

    # A score that only one of the two has is drawn with a dash: it was measured, and is undefined there.
    names = [name for name in NAMES if any(results[when].get(name) is not None for when in COLORS)]
    figure, [axes] = figure_of(7.2, 0.9 + 0.62 * len(names), grid="x")
    for shift, (when, color) in zip((-BAR / 2, BAR / 2), COLORS.items(), strict=True):
        for row, name in enumerate(names):
            axes.barh(row + shift, results[when].get(name) or 0, BAR, color=color)
            _label(axes, row + shift, results[when], name)
    axes.set_yticks(range(len(names)), [SCORES[name] for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 112)  # room for the number behind a full bar
    axes.set_xticks(range(0, 101, 20))
    edits = counted(results["n_edits"], "edit")
    axes.set_xlabel(f"percent, with 95 % intervals over {edits}; {protocol_text(results)}")
    keys = [Patch(color=color, label=when) for when, color in COLORS.items()]
    figure.legend(handles=keys, loc="outside upper right", ncols=2, frameon=False)
    return png_of(figure)


def figure_of(width: float, height: float, panels: int = 1, grid: str = "both") -> tuple[Any, Any]:
    """An empty figure of this size in inches, and its panels side by side."""
    # Not pyplot: it keeps state and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis=grid, color="#e5e7eb", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def png_of(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file."""
    out = io.BytesIO()
    # Without the version of matplotlib: the same results give the same bytes, and the same SHA-256.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _label(axes: Any, row: float, scores: dict[str, Any], name: str) -> None:
    """The interval, and the number behind it, or a dash where the score is undefined."""
    if scores.get(name) is None:
        axes.text(1.5, row, "—", va="center", fontsize=9, color="#111827")
        return
    low, high = scores.get(f"{name}_ci95") or (scores[name], scores[name])
    axes.plot([low, high], [row, row], color="#111827", linewidth=1.2)
    axes.text(max(high, scores[name]) + 1.5, row, f"{scores[name]:.1f}", va="center", fontsize=9, color="#111827")
