"""Drift: how far an edited model has moved from the unedited one in what it says to unrelated prompts."""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hf_ftedit import models
from hf_ftedit.augmentation import drift_prompts, mentions
from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation.engine import EvaluatedModel
from hf_ftedit.evaluation.statistics import estimate, ratio


class DriftReference(NamedTuple):
    """The unedited model's own answers to unrelated prompts, and its distributions at each of their tokens."""

    pairs: list[models.EncodedPair]
    references: list[models.Reference]
    sorts: list[str]  # of the prompts, such as "code"; empty texts where the prompts were given


def drift_reference(
    evaluated: EvaluatedModel, records: Iterable[EditRecord], prompts: Iterable[str] | None = None
) -> DriftReference:
    """
    What the drift of an edited model is measured by, of the unedited one; every process must call this.

    The prompts are by default 40 questions of many sorts that are never trained on, see
    [`~hf_ftedit.augmentation.drift_prompts`]; without those that name the subject of one of the edits in `records`,
    or do not fit into the model's context. Its answers are greedy and whole, with the token that ends them.
    """
    model, tokenizer, options, _ = evaluated
    subjects = [record.subject for record in records if record.subject]
    sorts = drift_prompts() if prompts is None else dict.fromkeys(prompts, "")
    prompts = [prompt for prompt in sorts if not any(mentions(prompt, subject) for subject in subjects)]
    rows = models.encode_prompts(tokenizer, prompts, chat_template=options.chat_template)
    longest = models.context_length(model.config) or sys.maxsize
    encoded = {prompt: ids for prompt, ids in zip(prompts, rows, strict=True) if len(ids) < longest}
    answers = models.whole_answers(model, tokenizer, list(encoded), desc="Drift: answers", **evaluated.settings)
    answered = zip(encoded.values(), answers, strict=True)
    pairs = [models.EncodedPair(ids + answer.tokens, len(ids)) for ids, answer in answered]
    refer = partial(models.reference_distributions, model, tokens_per_batch=options.eval_tokens_per_batch)
    references = models.Processes(model).each_once(pairs, refer)
    return DriftReference(pairs, references, [sorts[prompt] for prompt in encoded])


def measure_drift(evaluated: EvaluatedModel, reference: DriftReference) -> dict[str, Any]:
    """
    Mean KL divergence of a model from the unedited one in nats a token; every process must call this.

    It is taken over the tokens of the unedited model's own answers, of its 64 likeliest tokens at each place and of
    all others together.

    Returns:
        `dict`: `drift`, its bootstrap interval over the prompts `drift_ci95`, `n_drift_prompts`, and `drift_by_sort`
        of the prompts; empty where no prompt fits into the model's context.
    """
    if not reference.pairs:
        return {}
    model, size = evaluated.model, evaluated.options.eval_tokens_per_batch
    diverge = partial(models.pair_divergences, model, tokens_per_batch=size)
    tokens = models.Processes(model).each_once(list(zip(reference.pairs, reference.references, strict=True)), diverge)
    by_prompt = np.array([[values.sum(), len(values)] for values in tokens], dtype=float)
    places = {sort: np.equal(reference.sorts, sort) for sort in dict.fromkeys(reference.sorts) if sort}
    return {
        **estimate("drift", by_prompt, ratio),
        "n_drift_prompts": len(by_prompt),
        "drift_by_sort": {sort: float(ratio(by_prompt[own].mean(axis=0)[None])[0, 0]) for sort, own in places.items()},
    }
