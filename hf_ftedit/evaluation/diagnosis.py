"""Scores to words: what went wrong with an edit, and which setting to change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hf_ftedit.errors import EditError, one_line
from hf_ftedit.options import PROVENANCE
from hf_ftedit.text import counted

# Rules of thumb of ours, not of the paper.
LOW = 90.0  # a score below it is worth a change of settings
GAP = 15.0  # points by which one way of measuring may flatter
FEW = 30  # edits below which an interval says little
STILL_SAID = 5.0  # percent of erased answers
MOVED = 0.1  # nats a token of drift above which the model as a whole answers otherwise
MEASURABLE = "Give the edits `paraphrase_prompts` and `neighborhood_prompts` to measure it."


def diagnose(results: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> list[str]:
    """
    Read results by the failure signatures of Gangadhar & Stratos 2024 (arXiv 2402.11078, Sections 4 and 5).

    Low efficacy: the edits were not learnt. High efficacy with low generalization: the wording was learnt, not the
    fact; too few or too similar paraphrases. Low locality: too few locality facts, or too far from the edited ones.

    Args:
        results (`Mapping`): What `eval_results.json` holds; without `"after"` there is nothing to diagnose.
        settings (`Mapping`, *optional*): What `edit_config.yaml` holds, to name the present values.

    Returns:
        `list[str]`: sentences, the most important first.

    Raises:
        [`~hf_ftedit.EditError`]: `results` lack scores.
    """
    present = settings or {}

    def now(name: str) -> str:
        if name == "num_train_epochs" and (present.get("max_steps") or 0) > 0:
            name = "max_steps"  # then epochs count for nothing
        return f"`{name}` (now {present[name]})" if name in present else f"`{name}`"

    try:
        before, after = results["before"], results.get("after")
        if after is None:
            return []
        parts = (present.get(PROVENANCE) or {}).get("parts") or ()
        lost = list(_lost(parts))
        # Then they were learnt.
        others = {**after, "efficacy": None, "generalization": None} if lost else after
        advice = [*_scores(before, others, now, present), *_ways(after), *_damage(before, after, now)]
        if advice and len(parts) > 1:
            advice.append("A merge trains nothing: these settings are for training all the edits at once instead.")
        sentences = [*lost, *advice, *_doubts(results)]
    except (AttributeError, KeyError, TypeError) as error:
        raise EditError(
            f"results are none: {one_line(error)} is missing; give what eval_results.json holds"
        ) from error
    return sentences or ["Efficacy, generalization and locality are all 90 or more: nothing stands out."]


def _lost(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say that adapters which are merged spoil each other, where one of them held its edits alone."""
    pairs = [(part["efficacy_alone"], part["efficacy"]) for part in parts]
    for alone, here in sorted((pair for pair in pairs if _gap(*pair)), key=lambda pair: pair[1] - pair[0])[:1]:
        yield (
            f"Edits were lost in the merge: the efficacy of one part was {alone:.1f} alone and is {here:.1f} here. "
            "Train all the edits at once instead, or merge with other `weights` or another `combination_type`."
        )


def _scores(
    before: Mapping[str, Any], after: Mapping[str, Any], now: Callable[[str], str], present: Mapping[str, Any]
) -> Iterator[str]:
    # A chat model's rows need no pool, and are the same with every strategy.
    is_chat = present.get("chat_template", after.get("whole_answers"))
    objective = ", and use `objective` conditional rather than full" if present.get("objective") == "full" else ""
    if _is_low(after["efficacy"]):
        yield (
            f"Efficacy is low ({after['efficacy']:.1f}): the edits themselves were not learnt. Train longer "
            f"({now('num_train_epochs')}) or with a larger {now('learning_rate')}{objective}."
        )
    elif _is_low(after["generalization"]):
        learnt = "" if after["efficacy"] is None else f" while efficacy is {after['efficacy']:.1f}"
        wordings = "the edits `wordings`, or a larger `rewriter` that makes some"
        paraphrases = f"more paraphrases ({now('num_paraphrases')}) or more varied ones "
        paraphrases += f"({now('paraphrase_strategy')}; `relation` needs subjects and a locality pool)"
        yield (
            f"Generalization is low ({after['generalization']:.1f}){learnt}: the wording was learnt rather than the "
            f"fact. Give {wordings if is_chat else paraphrases}."
        )
    if (after.get("old_answer_said") or 0) > STILL_SAID:
        yield (
            f"Old answers that were to be erased are still said ({after['old_answer_said']:.1f} %). Train longer "
            f"({now('num_train_epochs')}), or give the edits other `wordings` that ask for the fact."
        )
    known = before.get("locality")
    if _is_low(after["locality"]) and known is not None and known <= after["locality"]:
        yield (
            f"Locality is low ({after['locality']:.1f}), but was {known:.1f} before training: the unedited model does "
            "not know all that the probes ask for."
        )
    elif _is_low(after["locality"]):
        nearer = f" or nearer ones ({now('locality_strategy')}; `near` needs a locality pool with relation_id)"
        yield (
            f"Locality is low ({after['locality']:.1f}): facts near the edited ones changed too. Rehearse more facts "
            f"({now('num_locality')}){'' if is_chat else nearer}."
        )
    if _is_low(after.get("near_names")):
        yield (
            f"Near names are low ({after['near_names']:.1f}): the new answers are given for other subjects with a "
            f"similar name too. Train longer with more questions about near names ({now('num_locality')})."
        )


def _ways(after: Mapping[str, Any]) -> Iterator[str]:
    """Where teacher forcing or the comparison of two answers flatters."""
    # Both are of the same probes, so that a gap is the protocol's and not the data's.
    answers, forced = (after.get(name) or {} for name in ("containment", "accuracy"))
    if _gap(forced.get("efficacy"), answers.get("efficacy")):
        yield (
            f"The model would go on with the new answers (accuracy {forced['efficacy']:.1f}) but says them by itself "
            f"less often ({answers['efficacy']:.1f}): teacher forcing flatters here; go by the generated answers."
        )
    exact = after.get("said_exactly")
    if not _is_low(after["efficacy"]) and _is_low(exact):
        yield (
            f"The new answers are said, but only {exact:.1f} % of them with nothing else: the model goes on after "
            f"them, or puts them into a sentence. Where they alone are wanted, train longer."
        )
    if after["protocol"] == "probability" and _gap(after["locality"], forced.get("locality")):
        yield (
            f"Of the near facts {after['locality']:.1f} % are still likelier than the new answers, but fewer are "
            f"still the model's first choice ({forced['locality']:.1f} by accuracy): compare with the value before "
            "the edit."
        )


def _damage(before: Mapping[str, Any], after: Mapping[str, Any], now: Callable[[str], str]) -> Iterator[str]:
    if (after.get("drift") or 0) > MOVED:
        yield (
            f"Drift is {after['drift']:.2f} nats a token, and answers to unrelated prompts change too. Lower the "
            f"{now('learning_rate')} or the {now('num_train_epochs')}, or rehearse more ({now('num_locality')}; for "
            f"a base model, {now('text_loss_weight')})."
        )
    first, second = before.get("perplexity"), after.get("perplexity")
    if first and second and second > 1.1 * first:
        yield (
            f"Perplexity rose from {first:.1f} to {second:.1f}: the model as a whole was changed. Lower the "
            f"{now('learning_rate')}, the {now('lora_r')} or the {now('num_train_epochs')}."
        )
    first, second = before.get("fluency"), after.get("fluency")
    if first and second is not None and second < 0.9 * first:
        yield (
            f"Fluency fell from {first:.0f} to {second:.0f}: generated text repeats itself. Lower the "
            f"{now('learning_rate')} or the {now('num_train_epochs')}."
        )


def _doubts(results: Mapping[str, Any]) -> Iterator[str]:
    before, after = results["before"], results["after"]
    if before["efficacy"] is not None and before["efficacy"] > 50:
        yield (
            f"{before['efficacy']:.0f} % of the edits held before training already: their gain says little; check "
            "that target_new is what the model does not say yet."
        )
    if after["protocol"] == "probability" and (same := after.get("n_without_rival")):
        yield (
            f"The right answer is the new target itself in {counted(same, 'probe')}, left out as no probability can "
            "tell the two apart. Give another answer there, or go by accuracy."
        )
    p_value = results.get("change", {}).get("edit_score", {}).get("p_value")
    if p_value is not None and p_value > 0.05 and after["n_edits"] > 5:  # five edits cannot reach it
        yield f"The change of the edit score could be chance (p = {p_value:.2f}): measure more edits."
    if after["n_edits"] == 1:
        yield "Only 1 edit was measured: its intervals, which are of edits drawn anew, say nothing of others."
    elif after["n_edits"] < FEW:
        yield f"Only {after['n_edits']} edits were measured: the intervals are wide, and rough at that."
    if after["edit_score_note"]:
        yield f"There is no edit score ({after['edit_score_note']}). {MEASURABLE}"


def _is_low(value: float | None) -> bool:
    return value is not None and round(value, 1) < LOW  # as it is shown: means of 90 may be 89.99999999999999


def _gap(high: float | None, low: float | None) -> bool:
    return high is not None and low is not None and high - low > GAP
