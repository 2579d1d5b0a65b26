"""The unedited model's answers to probes that must stay: targets of open ones, and what edited answers are held to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation.engine import answer_prompts
from hf_ftedit.evaluation.probes import filled
from hf_ftedit.models import Answer, first_sentence, greedy_answers, unedited

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def unedited_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    before: Mapping[str, Sequence[Any]] | None = None,
    chat_template: bool = False,
    whole: bool = False,
    tokens_per_batch: int = 2048,
) -> dict[str, Answer]:
    """
    The unedited model's own answers to what must stay, by prompt: to near names, if `whole` to neighborhood probes.

    Those that stand in the predictions `before` are taken from there. Under `accelerate launch` every process must
    call this. An adapter is switched off meanwhile; a model without one is taken as the unedited model.
    """
    prompts = {prompt for record in records for prompt in record.near_name_prompts}
    if whole:
        prompts |= {probe.prompt for record in records for probe in record.neighborhood_prompts}
    known: dict[str, Answer] = {}
    if before is not None and "generated" in before:
        stopped = before.get("stopped") or [None] * len(before["probe"])
        rows = zip(before["probe"], before["generated"], stopped, strict=True)
        known = {prompt: Answer(text, [], bool(end)) for prompt, text, end in rows if prompt in prompts}
    missing = sorted(prompts - known.keys())
    settings: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    with unedited(model):
        answers = answer_prompts(model, tokenizer, missing, desc="Unedited", **settings)
    return known | dict(zip(missing, answers, strict=True))


def with_answers(records: Sequence[EditRecord], answers: Mapping[str, Answer]) -> list[EditRecord]:
    """Records with the unedited model's whole answers, the first sentence of which is an open probe's target."""
    records = _filled(records, {prompt: first_sentence(answer.text) for prompt, answer in answers.items()})

    def answered(record: EditRecord) -> EditRecord:
        probes = (probe._replace(answer=answers[probe.prompt].text) for probe in record.neighborhood_prompts)
        return replace(record, neighborhood_prompts=tuple(probes))

    return list(map(answered, records))


def fill_neighborhood_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    tokens_per_batch: int = 2048,
) -> list[EditRecord]:
    """
    Records whose neighborhood probes all have targets: where the data gives none, the unedited model's own answer.

    Under `accelerate launch` every process must call this: each answers its share, and all return everything. An
    adapter is switched off meanwhile; a model without one is taken as the unedited model. After full fine-tuning, or
    once an adapter is merged, give the records of a [`~hf_ftedit.Measurement`] made before.

    Raises [`~hf_ftedit.EditError`] where a prompt fills the model's context.
    """
    prompts = sorted({p.prompt for record in records for p in record.neighborhood_prompts if p.target is None})
    if not prompts:
        return list(records)
    # At most eight tokens: enough for a name or a date, and few enough to be compared token by token afterwards.
    with unedited(model):
        answers = greedy_answers(
            model, tokenizer, prompts, tokens_per_batch=tokens_per_batch, desc="Answering locality probes"
        )
    return _filled(records, dict(zip(prompts, answers, strict=True)))


def _filled(records: Sequence[EditRecord], targets: Mapping[str, str]) -> list[EditRecord]:
    open_prompts = sorted({p.prompt for record in records for p in record.neighborhood_prompts if p.target is None})
    if silent := [prompt for prompt in open_prompts if not targets[prompt]]:
        logger.warning("left out %d neighborhood probes that the model does not answer: %r", len(silent), silent[0])
    return [filled(record, targets) for record in records]
