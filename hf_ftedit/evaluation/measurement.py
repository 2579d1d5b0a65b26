"""Measuring a model on edits: predictions for every probe, per-edit means and scores."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.engine import answer_prompts, sample_texts, score_targets
from hf_ftedit.evaluation.fluency import check_fluency, consistency, ngram_entropy
from hf_ftedit.evaluation.matching import containment, exact_match
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.evaluation.probes import ProbedTarget, check_lengths, filled, probed_targets
from hf_ftedit.evaluation.scoring import EditMeans, compare, edit_means, score
from hf_ftedit.models import (
    context_length,
    greedy_answers,
    load_config,
    load_model,
    load_tokenizer,
    unedited,
)
from hf_ftedit.options import EditOptions

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_checked(
    name: str | None,
    records: Iterable[EditRecord],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    chat_template: bool = False,
    revision: str | None = None,
    gguf_file: str | None = None,
    trust_remote_code: bool = False,
    token: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, by `kwargs` of [`~hf_ftedit.load_model`], and its tokenizer; before, check that the edits fit."""
    # The tokenizer and the configuration tell it: a run fails in seconds, before gigabytes of weights are read.
    source: dict[str, Any] = {"revision": revision, "gguf_file": gguf_file, "token": token}
    source["trust_remote_code"] = trust_remote_code
    tokenizer = tokenizer or load_tokenizer(name, **source)
    config = load_config(name, **source)
    check_lengths(records, tokenizer, context_length(config), chat_template=chat_template)
    return load_model(name, config=config, **source, **kwargs), tokenizer


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 2048,
    generate: bool = False,
    fluency: bool = False,
    seed: int = 0,
    desc: str = "Evaluating",
) -> dict[str, list[Any]]:
    """
    Predictions of `model` for all probes of `records`: all that [`~hf_ftedit.score`] needs.

    Each distinct (prompt, target) is computed once. Under `accelerate launch` every process must call this.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Edits with their probes; a neighborhood probe without target gets the unedited model's own answer.
        chat_template (`bool`, *optional*, defaults to `False`):
            Put the prompts into the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
        generate (`bool`, *optional*, defaults to `False`):
            Let the model answer each probe by itself too: greedy, at most 32 tokens, up to the end of the sequence,
            the line or the sentence (Yang et al. 2025, arXiv 2502.11177).
        fluency (`bool`, *optional*, defaults to `False`):
            Sample texts after the `generation_prompts`, top-k 5, up to 100 tokens, and measure their fluency and,
            against `reference_texts`, consistency (Meng et al. 2022).
        seed (`int`, *optional*, defaults to `0`):
            Seed of those texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `aspect`, `probe`, `role` (`"new"` or `"true"`), `target`,
        `logprob`, `match`, `token_accuracy`, one row per (probe, target); with `generate` also `generated`,
        `exact_match` and `containment` (of the target or its aliases in it); with `fluency` also a row of the kind
        `generation` for each text, with `text`, `fluency` (in bits) and `consistency`.

    Raises:
        [`~hf_ftedit.EditError`]: there are no edits, one does not fit into the context, or fluency cannot be measured.
    """
    settings: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    records = fill_neighborhood_targets(model, tokenizer, records, **settings)
    if fluency:
        check_fluency(records)
    if not (rows := list(probed_targets(records))):
        raise EditError("there are no edits to measure; give at least one")
    columns = _columns(rows, score_targets(model, tokenizer, rows, desc=desc, **settings))
    if generate:
        columns |= _answered(rows, answer_prompts(model, tokenizer, columns["probe"], desc=desc, **settings))
    if fluency:
        columns = _joined(columns, _written(model, tokenizer, records, seed, tokens_per_batch, desc))
    return columns


def _columns(rows: Sequence[ProbedTarget], scores: np.ndarray) -> dict[str, list[Any]]:
    """The columns that every prediction has."""
    return {
        "edit_id": [row.edit_id for row in rows],
        "kind": [row.kind for row in rows],
        "aspect": [row.aspect or "" for row in rows],
        "probe": [row.prompt for row in rows],
        "role": [row.role for row in rows],
        "target": [row.target for row in rows],
        "logprob": scores[:, 0].tolist(),
        "match": (scores[:, 1] == 1).tolist(),
        "token_accuracy": scores[:, 2].tolist(),
    }


def _answered(rows: Sequence[ProbedTarget], answers: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the model's own answers."""
    names = [(row.target, *row.aliases) for row in rows]
    return {
        "generated": list(answers),
        "exact_match": list(map(exact_match, answers, names)),
        "containment": list(map(containment, answers, names)),
    }


def _written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    seed: int,
    tokens_per_batch: int,
    desc: str,
) -> dict[str, list[Any]]:
    """Columns of rows of sampled text, with fluency and consistency."""
    openings = [(record.edit_id, prompt) for record in records for prompt in record.generation_prompts]
    texts = sample_texts(model, tokenizer, openings, seed=seed, tokens_per_batch=tokens_per_batch, desc=desc)
    # An edit's texts count together, as in ROME: one text of a hundred tokens holds few of the reference's words.
    by_edit: dict[str, list[str]] = {record.edit_id: [] for record in records}
    for (edit_id, _), text in zip(openings, texts, strict=True):
        by_edit[edit_id].append(text)
    agreement: dict[str, float | None] = {}
    if any(record.reference_texts for record in records):
        references = [record.reference_texts for record in records]
        agreement = dict(zip(by_edit, consistency(list(by_edit.values()), references), strict=True))
    return {
        "edit_id": [edit_id for edit_id, _ in openings],
        "kind": ["generation"] * len(openings),
        "aspect": [""] * len(openings),
        "role": [""] * len(openings),
        "probe": [prompt for _, prompt in openings],
        "text": list(texts),
        "fluency": [ngram_entropy(text) for text in texts],
        "consistency": [agreement.get(edit_id) for edit_id, _ in openings],
    }


def _joined(columns: dict[str, list[Any]], texts: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of probes and rows of texts in one table, `None` where a row has no such value."""
    sizes = [len(part["edit_id"]) for part in (columns, texts)]
    return {
        name: [*columns.get(name, [None] * sizes[0]), *texts.get(name, [None] * sizes[1])]
        for name in dict.fromkeys([*columns, *texts])
    }


# A tuple rather than an object that measures: what was measured does not change with the model.
class Measurement(NamedTuple):
    """
    One model's predictions, per-edit means and scores on a set of edits.

    Args:
        records (`list[EditRecord]`):
            The edits as they were measured: every neighborhood probe has a target. Measure another model, or the same
            one after training, on these, and both are held to the same answers.
        predictions (`dict[str, list]`):
            Columns of predictions, see [`predict`].
        means (`EditMeans`):
            Each edit's own scores.
        scores (`dict`):
            See [`~hf_ftedit.score`]; with texts, and [`~hf_ftedit.evaluation.perplexity.perplexity`].
    """

    records: list[EditRecord]
    predictions: dict[str, list[Any]]
    means: EditMeans
    scores: dict[str, Any]


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    options: EditOptions,
    *,
    texts: Sequence[str] = (),
    seed: int = 0,
    desc: str = "Evaluating",
) -> Measurement:
    """
    Predict and score, as the options say.

    `records` are left as they are: a neighborhood probe without target is measured against the unedited model's own
    answer, and [`Measurement`] holds the records with those answers.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Edits with their probes, see [`~hf_ftedit.read_edits`].
        options ([`~hf_ftedit.EditOptions`]):
            `protocol`, `chat_template`, `eval_tokens_per_batch`, `predict_with_generate` and `measure_fluency`.
        texts (`Sequence[str]`, *optional*):
            Texts for perplexity.
        seed (`int`, *optional*, defaults to `0`):
            Seed of sampled texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Raises:
        [`~hf_ftedit.EditError`]: as [`predict`].
    """
    settings: dict[str, Any] = {
        "chat_template": options.chat_template,
        "tokens_per_batch": options.eval_tokens_per_batch,
    }
    records = fill_neighborhood_targets(model, tokenizer, records, **settings)
    predictions = predict(
        model,
        tokenizer,
        records,
        generate=options.predict_with_generate,
        fluency=options.measure_fluency,
        seed=seed,
        desc=desc,
        **settings,
    )
    # Averaged once, and passed on: `score` and `compare` take the means as well as predictions.
    means = edit_means(predictions)
    scores = score(means, options.protocol)
    if texts:
        scores |= perplexity(model, tokenizer, texts, tokens_per_batch=options.eval_tokens_per_batch)
    return Measurement(records, predictions, means, scores)


def results_of(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Measurements, those `"before"` and maybe those `"after"`, as `eval_results.json` holds them."""
    scores = {when: measurement.scores for when, measurement in measured.items()}
    *_, last = scores.values()
    results = {**scores, "protocol": last["protocol"], "n_edits": last["n_edits"]}
    if "after" in measured:
        results["change"] = compare(measured["before"].means, measured["after"].means, last["protocol"])
    return results


def fill_neighborhood_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 2048,
) -> list[EditRecord]:
    """
    Records whose neighborhood probes all have targets: where the data gives none, the unedited model's own answer.

    Under `accelerate launch` every process must call this: each answers its share, and all return everything. An
    adapter is switched off meanwhile; a model without one is taken as the unedited model. After full fine-tuning, or
    once an adapter is merged, give the records of a [`Measurement`] made before.

    Raises [`~hf_ftedit.EditError`] where an item is no `EditRecord`, or a prompt fills the model's context.
    """
    # Dicts, the likeliest mistake, would fail further down by an attribute that no user has heard of.
    for number, record in enumerate(records):
        if not isinstance(record, EditRecord):
            raise EditError(f"edit {number} is no EditRecord but {type(record).__name__}; read it with read_edits")
    prompts = sorted({p.prompt for record in records for p in record.neighborhood_prompts if p.target is None})
    if not prompts:
        return list(records)
    settings: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    # At most eight tokens: enough for a name or a date, and few enough to be compared token by token afterwards.
    with unedited(model):
        answers = greedy_answers(model, tokenizer, prompts, desc="Answering locality probes", **settings)
    answer_of = dict(zip(prompts, answers, strict=True))
    if silent := [prompt for prompt in prompts if not answer_of[prompt]]:
        logger.warning("left out %d neighborhood probes that the model does not answer: %r", len(silent), silent[0])
    return [filled(record, answer_of) for record in records]
