"""Scores as text for people: their labels, one score with its interval, a change, how many edits stand behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_ftedit.evaluation.scoring import NAMES

SCORES = {
    "edit_score": "edit score",
    "efficacy": "efficacy",
    "generalization": "generalization",
    "locality": "locality",
    "portability": "portability",
    "fluency": "fluency",
    "consistency": "consistency",
    "perplexity": "perplexity",
}
KINDS = {**{name: kind for kind, name in NAMES.items()}, "fluency": "generation", "consistency": "generation"}


def score_text(scores: Mapping[str, Any], name: str) -> str:
    """A score with its 95 % interval, as `"93.1 (90.2 to 95.4)"`, or a dash where it is undefined."""
    if scores.get(name) is None:
        return "—"
    interval = scores.get(f"{name}_ci95")
    return f"{scores[name]:.1f}" + (f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else "")


def change_text(found: Mapping[str, Any] | None) -> str:
    """A change with its p-value, as `"+98.3 (p < 0.001)"`; nothing where there is none."""
    if found is None:
        return ""
    p_value = "p < 0.001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
    return f"{found['difference']:+.1f} ({p_value})"


def edits_text(number: int) -> str:
    """A number of edits, as `"1 edit"` or `"2 edits"`."""
    return "1 edit" if number == 1 else f"{number} edits"


def counts(scores: Mapping[str, Any], name: str) -> tuple[int | None, int]:
    """Edits and probes behind a score; of perplexity, texts alone."""
    if name == "perplexity":
        return None, scores["n_texts"]
    kinds = [KINDS[name]] if name in KINDS else ["rewrite", "paraphrase", "neighborhood"]
    scored = scores.get("n_edits_scored", {}).get(name, scores["n_edits"])
    return scored, sum(scores["n_probes"].get(kind, 0) for kind in kinds)
