"""Model and probes to predictions: each distinct prompt and target asked once, by one of the processes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.engine import Asker
from hf_ftedit.evaluation.fluency import check_fluency, consistency, ngram_entropy
from hf_ftedit.evaluation.matching import containment, exact_match
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.evaluation.predictions import EditMeans, edit_means
from hf_ftedit.evaluation.probes import ProbedTargets, check_lengths, filled
from hf_ftedit.evaluation.scoring import compare, score
from hf_ftedit.models import (
    context_length,
    load_config,
    load_model,
    load_tokenizer,
    shared_answers,
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
    trust_remote_code: bool = False,
    token: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Model and tokenizer of `name`; the edits are checked to fit into its context before its weights are read.

    Args:
        name (`str`, *optional*):
            Hub id or folder; the embedded model without one.
        records (`Iterable[EditRecord]`):
            Edits that it will be asked about.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Another tokenizer than the model's own.
        chat_template (`bool`, *optional*, defaults to `False`):
            Whether it will be asked through the chat template.
        revision (`str`, *optional*):
            Branch, tag or commit.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the repository brings.
        token (`str`, *optional*):
            Token of the Hub; the one of `hf auth login` by default.
        kwargs:
            Passed to [`~hf_ftedit.load_model`].

    Raises:
        [`~hf_ftedit.EditError`]: there is no such model, or an edit does not fit.
    """
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "token": token}
    tokenizer = tokenizer or load_tokenizer(name, **source)
    check_lengths(records, tokenizer, context_length(load_config(name, **source)), chat_template=chat_template)
    return load_model(name, **source, **kwargs), tokenizer


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
    journal: str | Path | None = None,
    desc: str = "Evaluating",
) -> dict[str, list[Any]]:
    """
    Predictions of `model` for all probes of `records`: all that [`~hf_ftedit.score`] needs.

    Each distinct (prompt, target) is computed once, however many probes share it. Under `accelerate launch` every
    process must call this: each computes its share, and all return everything.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records whose neighborhood probes have targets, see [`fill_neighborhood_targets`].
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
        generate (`bool`, *optional*, defaults to `False`):
            Let the model answer each probe by itself too: greedy, at most 32 tokens whatever the target's length, up
            to the end of the sequence, the line or the sentence. Why: Yang et al. 2025, arXiv 2502.11177.
        fluency (`bool`, *optional*, defaults to `False`):
            Let the model go on from the `generation_prompts`, sampled among the five likeliest tokens up to 100 tokens
            in all, and measure fluency and, against `reference_texts`, consistency (Meng et al. 2022).
        seed (`int`, *optional*, defaults to `0`):
            Seed of those texts.
        journal (`str` or `Path`, *optional*):
            File that keeps what is found, such as `scores/unfinished/after.jsonl`: a run that was stopped goes on from
            it when it is called again. Or a folder, where each state of the model and its settings get their own file.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `aspect`, `probe`, `role` (`"new"` or `"true"`), `target`,
        `logprob`, `match`, `token_accuracy`, one row per (probe, target); with `generate` also `generated`,
        `exact_match` and `containment` (of the target or its aliases in it); with `fluency` also a row of the kind
        `generation` for each text, with `text`, `fluency` (in bits) and `consistency`.

    Raises:
        [`~hf_ftedit.EditError`]: there are no edits, one does not fit into the model's context, or the journal
            is of another model or of other settings.
    """
    if fluency:
        check_fluency(records)
    asked = ProbedTargets(records)
    if not asked.columns["edit_id"]:
        raise EditError("there are no edits to measure")
    how: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    asker = Asker(model, tokenizer, seed=seed, journal=journal, desc=desc, **how)
    prompts, targets = asked.columns["probe"], asked.columns["target"]
    index, values = asker.scores(prompts, targets, asked.name)
    logprob, match, token_accuracy = values.T
    columns: dict[str, list[Any]] = {
        **asked.columns,
        "logprob": logprob[index].tolist(),
        "match": (match[index] == 1).tolist(),
        "token_accuracy": token_accuracy[index].tolist(),
    }
    if generate:
        said = asker.answers(prompts)
        names = [(target, *aliases) for target, aliases in zip(targets, asked.aliases, strict=True)]
        columns["generated"] = said
        columns["exact_match"] = list(map(exact_match, said, names))
        columns["containment"] = list(map(containment, said, names))
    if fluency:
        columns = _joined(columns, _written(asker, records))
    asker.close()
    return columns


class Measurement(NamedTuple):
    """
    What a model makes of some edits.

    Args:
        predictions (`dict[str, list]`):
            Columns of predictions, see [`predict`].
        means (`EditMeans`):
            Each edit's own scores.
        scores (`dict`):
            See [`~hf_ftedit.score`]; with texts, and [`~hf_ftedit.evaluation.perplexity.perplexity`].
    """

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
    journal: str | Path | None = None,
    desc: str = "Evaluating",
) -> Measurement:
    """
    Predict and score, as the options say.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records whose neighborhood probes have targets, see [`fill_neighborhood_targets`].
        options ([`~hf_ftedit.EditOptions`]):
            `protocol`, `chat_template`, `eval_tokens_per_batch`, `predict_with_generate` and `measure_fluency`.
        texts (`Sequence[str]`, *optional*):
            Texts for perplexity.
        seed (`int`, *optional*, defaults to `0`):
            Seed of sampled texts.
        journal (`str` or `Path`, *optional*):
            As in [`predict`].
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Raises:
        [`~hf_ftedit.EditError`]: as [`predict`].
    """
    predictions = predict(
        model,
        tokenizer,
        records,
        chat_template=options.chat_template,
        tokens_per_batch=options.eval_tokens_per_batch,
        generate=options.predict_with_generate,
        fluency=options.measure_fluency,
        seed=seed,
        journal=journal,
        desc=desc,
    )
    means = edit_means(predictions)
    scores = score(means, options.protocol)
    if texts:
        scores |= perplexity(model, tokenizer, texts, tokens_per_batch=options.eval_tokens_per_batch)
    return Measurement(predictions, means, scores)


def results_of(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """
    Measurements as `eval_results.json` holds them.

    Args:
        measured (`Mapping[str, Measurement]`):
            Those `"before"` and, where there is an edited model, `"after"`.
    """
    scores = {when: found.scores for when, found in measured.items()}
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

    Under `accelerate launch` every process must call this: each asks about its share, and all return everything.

    Args:
        model (`PreTrainedModel`):
            The unedited model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records as they were read.
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
    """
    open_prompts = {p.prompt for record in records for p in record.neighborhood_prompts if p.target is None}
    if not open_prompts:
        return list(records)
    prompts = sorted(open_prompts)
    how: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    answers = shared_answers(model, tokenizer, prompts, desc="Answering locality probes", **how)
    known = dict(zip(prompts, answers, strict=True))
    if silent := [prompt for prompt in prompts if not known[prompt]]:
        logger.warning("left out %d neighborhood probes that the model does not answer: %r", len(silent), silent[0])
    return [filled(record, known) for record in records]


def _written(asker: Asker, records: Sequence[EditRecord]) -> dict[str, list[Any]]:
    """Rows of generated text, with fluency and consistency."""
    openings = [(record.edit_id, prompt) for record in records for prompt in record.generation_prompts]
    texts = asker.texts(openings)
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
        "text": texts,
        "fluency": [ngram_entropy(text) for text in texts],
        "consistency": [agreement.get(edit_id) for edit_id, _ in openings],
    }


def _joined(columns: dict[str, list[Any]], texts: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of probes and rows of texts in one table, empty where a row has no such value."""
    sizes = [len(part["edit_id"]) for part in (columns, texts)]
    return {
        name: [*columns.get(name, [None] * sizes[0]), *texts.get(name, [None] * sizes[1])]
        for name in dict.fromkeys([*columns, *texts])
    }
