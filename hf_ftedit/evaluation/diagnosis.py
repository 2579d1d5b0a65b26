"""Scores to words: what went wrong with an edit, and which setting to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_ftedit.errors import EditError, one_line

# Rules of thumb of ours, not of the paper.
LOW = 90.0  # a score below it is worth a change of settings
GAP = 15.0  # points by which one way of measuring may flatter
FEW = 30  # edits below which an interval says little
MOVED = 0.1  # nats a token of drift above which the model as a whole answers otherwise
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

    Raises:
        [`~hf_ftedit.EditError`]: `results` lack scores.
    """
    try:
        before, after, settings = results["before"], results.get("after"), settings or {}
        if after is None:
            return []
        sentences = [*_scores(after, settings), *_ways(after), *_damage(before, after, settings), *_doubts(results)]
    except (KeyError, TypeError) as error:
        raise EditError(
            f"results are none: {one_line(error)} is missing; give what eval_results.json holds"
        ) from error
    if not sentences:
        sentences = ["Efficacy, generalization and locality are all 90 or more: nothing stands out."]
    return sentences


def _scores(after: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    sentences = []
    if _is_low(after["efficacy"]):
        sentences.append(
            f"Efficacy is low ({after['efficacy']:.1f}): the edits themselves were not learnt. Train longer "
            f"({_now('num_train_epochs', settings)}) or with a larger {_now('learning_rate', settings)}"
            f"{_objective(settings)}."
        )
    elif _is_low(after["generalization"]):
        sentences.append(
            f"Generalization is low ({after['generalization']:.1f}){_while(after['efficacy'])}: the "
            f"wording was learnt rather than the fact. Give more paraphrases ({_now('num_paraphrases', settings)}) or "
            f"more varied ones ({_now('paraphrase_strategy', settings)}; `relation` needs subjects and a locality "
            "pool)."
        )
    if _is_low(after["locality"]):
        sentences.append(
            f"Locality is low ({after['locality']:.1f}): facts near the edited ones changed too. Rehearse more facts "
            f"({_now('num_locality', settings)}) or nearer ones ({_now('locality_strategy', settings)}; `near` needs "
            "a locality pool with relation_id)."
        )
    if _is_low(after.get("near_names")):
        sentences.append(
            f"Near names are low ({after['near_names']:.1f}): the new answers are given for other subjects with a "
            "similar name too. Train longer with more questions about near names "
            f"({_now('num_locality', settings)})."
        )
    return sentences


def _ways(after: Mapping[str, Any]) -> list[str]:
    """Where teacher forcing or the comparison of two answers flatters."""
    sentences = []
    # Both are of the same probes, so that a gap is the protocol's and not the data's.
    answers, forced = (after.get(name) or {} for name in ("containment", "accuracy"))
    if _gap(forced.get("efficacy"), answers.get("efficacy")):
        sentences.append(
            f"The model would go on with the new answers (accuracy {forced['efficacy']:.1f}) but says them by itself "
            f"less often ({answers['efficacy']:.1f}): teacher forcing flatters here; go by the generated answers."
        )
    exact = after.get("said_exactly")
    if not _is_low(after["efficacy"]) and _is_low(exact):
        sentences.append(
            f"The new answers are said, but only {exact:.1f} % of them with nothing else: the model goes on after "
            f"them, or puts them into a sentence. Where they alone are wanted, train longer."
        )
    if after["protocol"] == "probability" and _gap(after["locality"], forced.get("locality")):
        sentences.append(
            f"Of the near facts {after['locality']:.1f} % are still likelier than the new answers, but fewer are "
            f"still the model's first choice ({forced['locality']:.1f} by accuracy): compare with the value before "
            "the edit."
        )
    return sentences


def _damage(before: Mapping[str, Any], after: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    sentences = []
    if (after.get("drift") or 0) > MOVED:
        sentences.append(
            f"Drift is {after['drift']:.2f} nats a token: answers to unrelated prompts change too. Lower the "
            f"{_now('learning_rate', settings)} or the {_now('num_train_epochs', settings)}, or rehearse more "
            f"({_now('num_locality', settings)})."
        )
    first, second = before.get("perplexity"), after.get("perplexity")
    if first and second and second > 1.1 * first:
        sentences.append(
            f"Perplexity rose from {first:.1f} to {second:.1f}: the model as a whole was changed. Lower the "
            f"{_now('learning_rate', settings)}, the {_now('lora_r', settings)} or the "
            f"{_now('num_train_epochs', settings)}."
        )
    first, second = before.get("fluency"), after.get("fluency")
    if first and second is not None and second < 0.9 * first:
        sentences.append(
            f"Fluency fell from {first:.0f} to {second:.0f}: generated text repeats itself. Lower the "
            f"{_now('learning_rate', settings)} or the {_now('num_train_epochs', settings)}."
        )
    return sentences


def _doubts(results: Mapping[str, Any]) -> list[str]:
    before, after = results["before"], results["after"]
    sentences = []
    if before["efficacy"] is not None and before["efficacy"] > 50:
        sentences.append(
            f"{before['efficacy']:.0f} % of the edits held before training already: their gain says little; check "
            "that target_new is what the model does not say yet."
        )
    if after["protocol"] == "probability" and (same := after.get("n_without_rival")):
        sentences.append(
            f"Of {same} probes the right answer is the new target itself: they are left out, as no probability can "
            "tell the two apart. Give them another answer, or go by accuracy."
        )
    p_value = results.get("change", {}).get("edit_score", {}).get("p_value")
    if p_value is not None and p_value > 0.05 and after["n_edits"] > 5:  # five edits cannot reach it
        sentences.append(f"The change of the edit score could be chance (p = {p_value:.2f}): measure more edits.")
    if after["n_edits"] < FEW:
        edits = "edit was" if after["n_edits"] == 1 else "edits were"
        sentences.append(f"Only {after['n_edits']} {edits} measured: the intervals are wide, and rough at that.")
    if after["edit_score_note"]:
        sentences.append(f"There is no edit score ({after['edit_score_note']}). {MEASURABLE}")
    return sentences


def _is_low(value: float | None) -> bool:
    return value is not None and value < LOW


def _while(efficacy: float | None) -> str:
    return "" if efficacy is None else f" while efficacy is {efficacy:.1f}"


def _gap(high: float | None, low: float | None) -> bool:
    return high is not None and low is not None and high - low > GAP


def _now(name: str, settings: Mapping[str, Any]) -> str:
    """A setting with its present value, where that is at hand."""
    return f"`{name}` (now {settings[name]})" if name in settings else f"`{name}`"


def _objective(settings: Mapping[str, Any]) -> str:
    return ", and use `objective` conditional rather than full" if settings.get("objective") == "full" else ""
