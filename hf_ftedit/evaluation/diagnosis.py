"""Scores to words: what went wrong with an edit, and which setting to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOW = 90.0  # a score below it is worth a change of settings
GAP = 15.0  # points by which one way of measuring may flatter
FEW = 30  # edits below which an interval says little
MEASURABLE = "Give the edits `paraphrase_prompts` and `neighborhood_prompts` to measure it."


def diagnose(results: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> list[str]:
    """
    Read results by the failure signatures of Gangadhar & Stratos 2024 (arXiv 2402.11078, Sections 4 and 5).

    Low efficacy: the edits were not learnt. High efficacy with low generalization: the wording was learnt, not the
    fact; too few or too similar paraphrases. Low locality: too few locality facts, or too far from the edited ones.

    Args:
        results (`Mapping`):
            What `eval_results.json` holds; without `"after"` there is nothing to diagnose.
        settings (`Mapping`, *optional*):
            What `edit_config.yaml` holds, to name the present values.

    Returns:
        `list[str]`: sentences, the most important first.
    """
    if "after" not in results:
        return []
    before, after, known = results["before"], results["after"], settings or {}
    found = [*_scores(after, known), *_ways(after), *_damage(before, after, known), *_doubts(results)]
    if not found:
        found = ["Efficacy, generalization and locality are all 90 or more: nothing stands out."]
    return found


def _scores(after: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    found = []
    if _is_low(after["efficacy"]):
        found.append(
            f"Efficacy is low ({after['efficacy']:.1f}): the edits themselves were not learnt. Train longer "
            f"({_now('num_train_epochs', known)}) or with a larger {_now('learning_rate', known)}"
            f"{_objective(known)}."
        )
    elif _is_low(after["generalization"]):
        found.append(
            f"Generalization is low ({after['generalization']:.1f}){_while(after['efficacy'])}: the "
            f"wording was learnt rather than the fact. Give more paraphrases ({_now('num_paraphrases', known)}) or "
            f"more varied ones ({_now('paraphrase_strategy', known)}; `relation` needs subjects and a locality pool)."
        )
    if _is_low(after["locality"]):
        found.append(
            f"Locality is low ({after['locality']:.1f}): facts near the edited ones changed too. Rehearse more facts "
            f"({_now('num_locality', known)}) or nearer ones ({_now('locality_strategy', known)}; `near` needs a "
            f"locality pool with relation_id)."
        )
    return found


def _ways(after: Mapping[str, Any]) -> list[str]:
    """Where teacher forcing or the comparison of two answers flatters."""
    found = []
    said, forced = (after.get(name) or {} for name in ("containment", "accuracy"))
    if _gap(forced.get("efficacy"), said.get("efficacy")):
        found.append(
            f"The model would go on with the new answers (accuracy {forced['efficacy']:.1f}) but says them by itself "
            f"less often ({said['efficacy']:.1f}): teacher forcing flatters here; go by the generated answers."
        )
    if after["protocol"] == "probability" and _gap(after["locality"], forced.get("locality")):
        found.append(
            f"Of the near facts {after['locality']:.1f} % are still likelier than the new answers, but fewer are "
            f"still the model's first choice ({forced['locality']:.1f} by accuracy): compare with the value before "
            "the edit."
        )
    return found


def _damage(before: Mapping[str, Any], after: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    found = []
    first, second = before.get("perplexity"), after.get("perplexity")
    if first and second and second > 1.1 * first:
        found.append(
            f"Perplexity rose from {first:.1f} to {second:.1f}: the model as a whole was changed. Lower the "
            f"{_now('learning_rate', known)}, the {_now('lora_r', known)} or the {_now('num_train_epochs', known)}."
        )
    first, second = before.get("fluency"), after.get("fluency")
    if first and second is not None and second < 0.9 * first:
        found.append(
            f"Fluency fell from {first:.0f} to {second:.0f}: generated text repeats itself. Lower the "
            f"{_now('learning_rate', known)} or the {_now('num_train_epochs', known)}."
        )
    return found


def _doubts(results: Mapping[str, Any]) -> list[str]:
    before, after = results["before"], results["after"]
    found = []
    if before["efficacy"] is not None and before["efficacy"] > 50:
        found.append(
            f"{before['efficacy']:.0f} % of the edits held before training already: their gain says little; check "
            "that target_new is what the model does not say yet."
        )
    p_value = results.get("change", {}).get("edit_score", {}).get("p_value")
    if p_value is not None and p_value > 0.05 and after["n_edits"] > 5:  # five edits cannot reach it
        found.append(f"The change of the edit score could be chance (p = {p_value:.2f}): measure more edits.")
    if after["n_edits"] < FEW:
        edits = "edit was" if after["n_edits"] == 1 else "edits were"
        found.append(f"Only {after['n_edits']} {edits} measured: the intervals are wide, and rough at that.")
    if after["edit_score_note"]:
        found.append(f"There is no edit score ({after['edit_score_note']}). {MEASURABLE}")
    return found


def _is_low(value: float | None) -> bool:
    return value is not None and value < LOW


def _while(efficacy: float | None) -> str:
    return "" if efficacy is None else f" while efficacy is {efficacy:.1f}"


def _gap(high: float | None, low: float | None) -> bool:
    return high is not None and low is not None and high - low > GAP


def _now(name: str, known: Mapping[str, Any]) -> str:
    """A setting with its present value, where it is known."""
    return f"`{name}` (now {known[name]})" if name in known else f"`{name}`"


def _objective(known: Mapping[str, Any]) -> str:
    return ", and use `objective` conditional rather than full" if known.get("objective") == "full" else ""
