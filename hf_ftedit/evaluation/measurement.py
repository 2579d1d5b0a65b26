"""Measuring a model on edits: predictions for every probe, per-edit means and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.drift import DriftReference, drift_reference, measure_drift
from hf_ftedit.evaluation.engine import answer_prompts, sample_texts, score_targets
from hf_ftedit.evaluation.fluency import check_fluency, consistency, ngram_entropy
from hf_ftedit.evaluation.own_answers import judged
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.evaluation.probes import ProbedTarget, check_known, check_lengths, probed_targets
from hf_ftedit.evaluation.scoring import EditMeans, compare, edit_means, score
from hf_ftedit.evaluation.unedited_answers import fill_neighborhood_targets, unedited_answers, with_answers
from hf_ftedit.models import (
    Answer,
    context_length,
    first_sentence,
    in_turn,
    is_unedited,
    load_config,
    load_model,
    load_tokenizer,
    prepare_tokenizer,
    unedited,
)
from hf_ftedit.options import EditOptions, check_value

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_checked(
    name: str | None,
    records: Iterable[EditRecord],
    options: EditOptions,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    trust_remote_code: bool = False,
    token: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, by `kwargs` of [`~hf_ftedit.load_model`], and its tokenizer; check before that the edits fit."""
    # The tokenizer and the configuration tell it: a run fails in seconds, before gigabytes of weights are read.
    source: dict[str, Any] = {"revision": revision, "gguf_file": gguf_file, "token": token}
    source["trust_remote_code"] = trust_remote_code
    tokenizer = tokenizer or load_tokenizer(name, **source)
    prepare_tokenizer(tokenizer, options)
    # Not passed on to `load_model`: what of `kwargs` is for the configuration, transformers would not look for then.
    config = kwargs.get("config") or load_config(name, **source, **kwargs)
    check_known(records, tokenizer, config, options)
    check_lengths(records, tokenizer, context_length(config), chat_template=options.chat_template)
    return load_model(name, **source, **kwargs), tokenizer


@in_turn
def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    before: Mapping[str, Sequence[Any]] | None = None,
    chat_template: bool = False,
    end_of_answer: bool = False,
    tokens_per_batch: int = 2048,
    generate: bool = False,
    fluency: bool = False,
    seed: int = 0,
    desc: str = "Evaluating",
) -> dict[str, list[Any]]:
    """
    Predictions of `model` for all probes of `records`: all that [`~hf_ftedit.score`] needs.

    Each distinct (prompt, target) is computed once. Threads take turns with a model. Under `accelerate launch` every
    process must call this.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Edits with their probes; a neighborhood probe without target gets the unedited model's own answer.
        before (`Mapping[str, Sequence]`, *optional*):
            Predictions of the unedited model. By default it is asked what must stay, with the adapter of `model`
            switched off; a model without one counts as unedited.
        chat_template (`bool`, *optional*, defaults to `False`):
            Use the chat template, and let the model answer by itself: greedy, to its end of turn, at most 32 tokens.
        end_of_answer (`bool`, *optional*, defaults to `False`):
            The same of a base model that was taught to stop: `stopped` are those that end with their first sentence.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
        generate (`bool`, *optional*, defaults to `False`):
            Let a model without chat template answer each probe by itself too: greedy, at most 32 tokens, up to the end
            of the sequence, the line or the sentence (Yang et al. 2025, arXiv 2502.11177).
        fluency (`bool`, *optional*, defaults to `False`):
            Sample texts after the `generation_prompts`, top-k 5, up to 100 tokens, and measure their fluency and,
            against `reference_texts`, consistency (Meng et al. 2022).
        seed (`int`, *optional*, defaults to `0`):
            Seed of those texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `aspect`, `probe`, `role` (`"new"` or `"true"`), `target`,
        `logprob`, `match`, `token_accuracy`, one row per (probe, target); with own answers also `generated`,
        `exact_match` and `containment`, see [`~hf_ftedit.evaluation.own_answers.judged`], and in chat, or with
        `end_of_answer`, `stopped`, true where the answer ended by itself, and `own_logprob`, of neighborhood probes
        how likely the unedited model's own answer is (mean log-probability); with `fluency` also a row of the kind
        `generation` for each text, with `text`, `fluency` (in bits) and `consistency`.

    Raises:
        [`~hf_ftedit.EditError`]: there are no edits, one does not fit into the context, or fluency cannot be measured.
    """
    settings: dict[str, Any] = {"chat_template": chat_template, "end_of_answer": end_of_answer}
    settings |= {"eval_tokens_per_batch": tokens_per_batch, "predict_with_generate": generate}
    options = EditOptions(measure_fluency=fluency, **settings)
    return _predicted(model, tokenizer, records, before, options, seed, desc)[1]


def _predicted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    before: Mapping[str, Sequence[Any]] | None,
    options: EditOptions,
    seed: int,
    desc: str,
) -> tuple[list[EditRecord], dict[str, list[Any]]]:
    """The records with the unedited model's answers, and the predictions."""
    seed = check_value("seed", seed, int)
    tokens, whole = options.eval_tokens_per_batch, options.has_whole_answers
    settings: dict[str, Any] = {"chat_template": options.chat_template, "tokens_per_batch": tokens, "desc": desc}
    records, old = _prepared(model, tokenizer, records, before, options)
    if options.measure_fluency:
        check_fluency(records)
    if not (rows := list(probed_targets(records))):
        raise EditError("there are no edits to measure; give at least one")
    asked = _own_sentences(rows, old) if whole else []
    scores = score_targets(model, tokenizer, [*rows, *asked], **settings)
    columns = _columns(rows, scores[: len(rows)])
    if options.predict_with_generate or whole:
        # The same model's answers of a moment ago are not generated again.
        own = dict(old) if before is None and is_unedited(model) else {}
        missing = [prompt for prompt in dict.fromkeys(columns["probe"]) if prompt not in own]
        own |= zip(missing, answer_prompts(model, tokenizer, missing, **settings), strict=True)
        likely = dict(zip([row.prompt for row in asked], scores[len(rows) :, 0].tolist(), strict=True))
        was = likely if is_unedited(model) and before is None else _own_logprobs(before)
        if likely.keys() - was.keys():
            with unedited(model):
                was = dict(zip(likely, score_targets(model, tokenizer, asked, **settings)[:, 0].tolist(), strict=True))
        falls = {prompt: was[prompt] - logprob for prompt, logprob in likely.items()}
        columns |= _answered(rows, own, old, falls, whole=whole)
        if whole:
            columns["own_logprob"] = [likely.get(prompt) for prompt in columns["probe"]]
    if options.measure_fluency:
        texts = _written(model, tokenizer, records, seed, tokens, desc)
        columns = _joined(columns, texts)
    return records, columns


def _prepared(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    before: Mapping[str, Sequence[Any]] | None,
    options: EditOptions,
) -> tuple[list[EditRecord], dict[str, Answer]]:
    """Records whose neighborhood probes all have targets, and the unedited model's answers to what must stay."""
    # Dicts, the likeliest mistake, would fail further down by an attribute that no user has heard of.
    for number, record in enumerate(records):
        if not isinstance(record, EditRecord):
            raise EditError(f"edit {number} is no EditRecord but {type(record).__name__}; read it with read_edits")
    if records:
        check_known(records, tokenizer, model.config, options)
    tokens = options.eval_tokens_per_batch
    settings: dict[str, Any] = {"before": before, "tokens_per_batch": tokens}
    if options.has_whole_answers:
        settings |= {"chat_template": options.chat_template, "whole": True}
        answers = unedited_answers(model, tokenizer, records, **settings)
        return with_answers(records, answers), answers
    records = fill_neighborhood_targets(model, tokenizer, records, tokens_per_batch=tokens)
    return records, unedited_answers(model, tokenizer, records, **settings) if options.predict_with_generate else {}


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


def _own_sentences(rows: Sequence[ProbedTarget], answers: Mapping[str, Answer]) -> list[ProbedTarget]:
    """The first sentence of each of the unedited model's `answers` to neighborhood probes, as a target."""
    probes = {row.prompt: row for row in rows if row.kind == "neighborhood"}
    sentences = {prompt: first_sentence(answers[prompt].text) for prompt in probes}
    return [row._replace(target=sentences[prompt]) for prompt, row in probes.items() if sentences[prompt]]


def _own_logprobs(before: Mapping[str, Sequence[Any]] | None) -> dict[str, float]:
    """Of predictions, the mean log-probability of the unedited model's own answer, by probe."""
    if before is None or "own_logprob" not in before:
        return {}
    pairs = zip(before["probe"], before["own_logprob"], strict=True)
    return {prompt: logprob for prompt, logprob in pairs if logprob is not None}


def _answered(
    rows: Sequence[ProbedTarget],
    answers: Mapping[str, Answer],
    before: Mapping[str, Answer],
    falls: Mapping[str, float],
    *,
    whole: bool,
) -> dict[str, list[Any]]:
    """Columns of the model's own answers."""
    own = [answers[row.prompt] for row in rows]
    verdicts = [
        judged(row, answer, before, whole=whole, fall=falls.get(row.prompt, 0.0))
        for row, answer in zip(rows, own, strict=True)
    ]
    columns: dict[str, list[Any]] = {"generated": [answer.text for answer in own]}
    if whole:
        columns["stopped"] = [answer.ended for answer in own]
    return columns | {"exact_match": [exact for exact, _ in verdicts], "containment": [held for _, held in verdicts]}


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
            See [`~hf_ftedit.score`]; of an edited model also [`~hf_ftedit.evaluation.drift.measure_drift`]; with
            texts [`~hf_ftedit.evaluation.perplexity.perplexity`] too.
        reference (`DriftReference`, *optional*):
            What the drift of an edited model is measured by.
    """

    records: list[EditRecord]
    predictions: dict[str, list[Any]]
    means: EditMeans
    scores: dict[str, Any]
    reference: DriftReference | None = None


@in_turn
def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    options: EditOptions,
    *,
    before: Measurement | None = None,
    drift: bool = True,
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
            `protocol`, `chat_template`, `end_of_answer`, `eval_tokens_per_batch`, `predict_with_generate` and
            `measure_fluency`.
        before ([`Measurement`], *optional*):
            That of the unedited model, with which an edited one is compared. Without it, the adapter of `model` is
            switched off to ask what stayed; a model without one counts as unedited.
        drift (`bool`, *optional*, defaults to `True`):
            Measure the drift of an edited model, and keep of the unedited one what it is measured by.
        texts (`Sequence[str]`, *optional*):
            Texts for perplexity.
        seed (`int`, *optional*, defaults to `0`):
            Seed of sampled texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Raises:
        [`~hf_ftedit.EditError`]: as [`predict`].
    """
    old = before.predictions if before else None
    records, predictions = _predicted(model, tokenizer, records, old, options, seed, desc)
    # Averaged once, and passed on: `score` and `compare` take the means as well as predictions.
    means = edit_means(predictions)
    scores = score(means, options.protocol)
    if made := sum(record.made_probes for record in records):
        scores["n_made_probes"] = made
    reference, moved = _drift(model, tokenizer, records, before, options) if drift else (None, {})
    scores |= moved
    if texts:
        scores |= perplexity(model, tokenizer, texts, tokens_per_batch=options.eval_tokens_per_batch)
    return Measurement(records, predictions, means, scores, reference)


def _drift(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    before: Measurement | None,
    options: EditOptions,
) -> tuple[DriftReference | None, dict[str, Any]]:
    """What drift is measured by, and the drift of a model that is edited."""
    reference = before.reference if before else None
    settings: dict[str, Any] = {"tokens_per_batch": options.eval_tokens_per_batch}
    if before is None:
        with unedited(model):
            reference = drift_reference(model, tokenizer, records, chat_template=options.chat_template, **settings)
    is_edited = before is not None or not is_unedited(model)
    return reference, measure_drift(model, reference, **settings) if reference and is_edited else {}


def results_of(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Measurements, those `"before"` and maybe those `"after"`, as `eval_results.json` holds them."""
    scores = {when: measurement.scores for when, measurement in measured.items()}
    *_, last = scores.values()
    results = {**scores, "protocol": last["protocol"], "n_edits": last["n_edits"]}
    if "after" in measured:
        results["change"] = compare(measured["before"].means, measured["after"].means, last["protocol"])
    return results
