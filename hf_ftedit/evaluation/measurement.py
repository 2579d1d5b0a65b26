"""Measuring a model on edits: predictions for every probe, per-edit means and scores."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit import models
from hf_ftedit.augmentation import with_erasures
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError, shown
from hf_ftedit.evaluation.drift import DriftReference, drift_reference, measure_drift
from hf_ftedit.evaluation.engine import EvaluatedModel, answer_prompts, sample_texts, score_targets, with_answers
from hf_ftedit.evaluation.fluency import check_fluency, consistency, ngram_entropy
from hf_ftedit.evaluation.known_facts import known_facts
from hf_ftedit.evaluation.own_answers import erased_answers, judged
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.evaluation.probes import ProbedTarget, check_known, check_lengths, probed_targets
from hf_ftedit.evaluation.scoring import GENERATED, EditMeans, compare, edit_means, score
from hf_ftedit.options import EditOptions, check_value
from hf_ftedit.scripts import separated

_COLUMNS = ("edit_id", "kind", "probe", "role", "target", "aspect")  # that a `ProbedTarget` begins with


def load_checked(
    name: str | None,
    records: Iterable[EditRecord],
    options: EditOptions,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, by `kwargs` of [`~hf_ftedit.load_model`], and its tokenizer; check before that the edits fit."""
    # The tokenizer and the configuration tell it: a run fails in seconds, before gigabytes of weights are read.
    source = {key: kwargs[key] for key in ("revision", "gguf_file", "trust_remote_code", "token") if key in kwargs}
    tokenizer = tokenizer or models.load_tokenizer(name, **source)
    models.prepare_tokenizer(tokenizer, options)
    # Not passed on to `load_model`: what of `kwargs` is for the configuration, transformers would not look for then.
    config = kwargs.get("config") or models.load_config(name, **kwargs)
    check_known(records, tokenizer, config, options)
    check_lengths(records, tokenizer, models.context_length(config), chat_template=options.chat_template)
    return models.load_model(name, **kwargs), tokenizer


@models.in_turn
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

    Each distinct (prompt, target) is computed once. Under `accelerate launch` every process must call this.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]): Causal language model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        records (`Sequence[EditRecord]`): Edits with their probes; a neighborhood probe without target gets the
            unedited model's own answer.
        before (`Mapping[str, Sequence]`, *optional*): Predictions of the unedited model. By default it answers what
            must stay here, with the adapter of `model` switched off; a model without one counts as unedited.
        chat_template (`bool`, *optional*, defaults to `False`): Use the chat template, and let the model answer by
            itself: greedy, to its end of turn, at most 32 tokens.
        end_of_answer (`bool`, *optional*, defaults to `False`): The same of a base model that was taught to stop:
            `stopped` are those that end with their first sentence.
        tokens_per_batch (`int`, *optional*, defaults to `2048`): Tokens of a batch; halved where memory does not
            suffice.
        generate (`bool`, *optional*, defaults to `False`): Let a model without chat template answer each probe by
            itself too: greedy, at most 32 tokens, up to the end of the sequence, the line or the sentence (Yang et al.
            2025, arXiv 2502.11177).
        fluency (`bool`, *optional*, defaults to `False`): Sample texts after the `generation_prompts`, top-k 5, up to
            100 tokens, and measure their fluency and, against `reference_texts`, consistency (Meng et al. 2022).
        seed (`int`, *optional*, defaults to `0`): Seed of those texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`): Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `aspect`, `probe`, `role` (`"new"` or `"true"`), `target`,
        `logprob`, `match`, `token_accuracy`, one row per (probe, target); with own answers also `generated`,
        `exact_match` and `containment`, see [`~hf_ftedit.evaluation.own_answers.judged`], and in chat, or with
        `end_of_answer`, `stopped`, true where the answer ended by itself, and `own_logprob`, of neighborhood probes
        how likely the unedited model's own answer is (mean log-probability); of erased facts `old_probability`, of
        the unedited model's answer up to where it has said the old one, and `old_said`, whether the own answer says
        it; with `fluency` also a row of the kind `generation` for each text, with `text`, `fluency` (in bits) and
        `consistency`.

    Raises:
        [`~hf_ftedit.EditError`]: there are no edits, one does not fit into the context, or fluency cannot be measured.
    """
    settings: dict[str, Any] = {"chat_template": chat_template, "end_of_answer": end_of_answer}
    settings |= {"eval_tokens_per_batch": tokens_per_batch, "predict_with_generate": generate}
    options = EditOptions(measure_fluency=fluency, **settings)
    return _predicted(EvaluatedModel(model, tokenizer, options, desc), records, before, seed)[1]


def _predicted(
    evaluated: EvaluatedModel, records: Sequence[EditRecord], before: Mapping[str, Sequence[Any]] | None, seed: int
) -> tuple[list[EditRecord], dict[str, list[Any]]]:
    """The records with the unedited model's answers, and the predictions."""
    model, tokenizer, options, _ = evaluated
    records = _checked("records", records, EditRecord, "edits, as read_edits returns them")
    seed = check_value("seed", seed, int)
    if doubled := [name for name, count in Counter(record.edit_id for record in records).items() if count > 1]:
        raise EditError(f"edit_id {shown(doubled[0])} names two edits; give each a name of its own")
    # Without the columns, what the edited model says now would be taken for what it said before.
    if not isinstance(before, Mapping | None):
        raise EditError(
            f"before is a {type(before).__name__} and no columns; give its predictions, or those of predict"
        )
    if records and not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise EditError(f"tokenizer is of type {type(tokenizer).__name__}; give the model's tokenizer")
    if records:
        check_known(records, tokenizer, model.config, options)
    records = with_erasures(records, model, tokenizer, chat_template=options.chat_template)
    records, old = with_answers(evaluated, records, before)
    if options.measure_fluency:
        check_fluency(records)
    if not (rows := list(probed_targets(records))):
        raise EditError("there are no edits to measure; give at least one")
    sentences = _own_sentences(rows, old) if options.has_whole_answers else []
    erased = erased_answers(rows, records, old)
    scores = score_targets(evaluated, [*rows, *sentences, *erased.values()])
    of_rows, of_sentences, of_erased = np.split(scores, [len(rows), len(rows) + len(sentences)])
    parts = zip(*(row[: len(_COLUMNS)] for row in rows), strict=True)
    columns = dict(zip(_COLUMNS, map(list, parts), strict=True))
    logprobs, matches, accuracies = of_rows.T
    columns |= {"logprob": logprobs.tolist(), "match": (matches == 1).tolist(), "token_accuracy": accuracies.tolist()}
    if options.has_whole_answers or options.predict_with_generate:
        likely = dict(zip(sentences, of_sentences[:, 0].tolist(), strict=True))
        columns |= _answer_columns(evaluated, rows, old, before, likely)
    if erased:
        columns |= _erased_columns(evaluated, erased, of_erased[:, 0], columns)
    if options.measure_fluency:
        texts = _text_columns(evaluated, records, seed)
        # One table of both, with `None` where a row has no such value.
        sizes = [(part, [None] * len(part["edit_id"])) for part in (columns, texts)]
        names = dict.fromkeys([*columns, *texts])
        columns = {name: [value for part, no in sizes for value in part.get(name, no)] for name in names}
    return list(records), columns


def _checked(name: str, values: Any, made: type, expected: str) -> list[Any]:
    """`values` as a list; raises [`EditError`] where one is of another type, such as a letter of a path."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise EditError(f"{name} is {shown(values)}: give a list of {expected}")
    values = list(values)
    for number, value in enumerate(values):
        if not isinstance(value, made):
            raise EditError(f"{name}: {number} is of type {type(value).__name__}; give a list of {expected}")
    return values


def _own_sentences(rows: Sequence[ProbedTarget], answers: Mapping[str, models.Answer]) -> list[ProbedTarget]:
    """The first sentence of each of the unedited model's `answers` to neighborhood probes, as a target."""
    probes = {row.prompt: row for row in rows if row.kind == "neighborhood"}
    sentences = {prompt: models.first_sentence(answers[prompt].text) for prompt in probes}
    return [row._replace(target=sentences[prompt]) for prompt, row in probes.items() if sentences[prompt]]


def _answer_columns(
    evaluated: EvaluatedModel,
    rows: Sequence[ProbedTarget],
    old: Mapping[str, models.Answer],
    before: Mapping[str, Sequence[Any]] | None,
    likely: Mapping[ProbedTarget, float],
) -> dict[str, list[Any]]:
    """
    Columns of the model's own answers, compared with the unedited model's `old` ones.

    `likely` has the first sentences of those, each with its mean log-probability now.
    """
    # What the same model answered a moment ago is not generated or scored again.
    is_old, whole = before is None and models.is_unedited(evaluated.model), evaluated.options.has_whole_answers
    own = dict(old) if is_old else {}
    missing = [prompt for prompt in dict.fromkeys(row.prompt for row in rows) if prompt not in own]
    own |= zip(missing, answer_prompts(evaluated, missing), strict=True)
    now = {row.prompt: logprob for row, logprob in likely.items()}
    was = now if is_old else {}
    if before is not None and "own_logprob" in before:
        pairs = zip(before["probe"], before["own_logprob"], strict=True)
        was = {prompt: logprob for prompt, logprob in pairs if logprob is not None}
    if now.keys() - was.keys():
        with models.unedited(evaluated.model):
            scores = score_targets(evaluated, list(likely))
        was = dict(zip(now, scores[:, 0].tolist(), strict=True))
    falls = {prompt: was[prompt] - logprob for prompt, logprob in now.items()}
    answers = [own[row.prompt] for row in rows]
    kind = {"whole": whole, "sentences": not evaluated.options.chat_template}
    verdicts = [judged(row, own[row.prompt], old, **kind, fall=falls.get(row.prompt, 0.0)) for row in rows]
    columns: dict[str, list[Any]] = {"generated": [answer.text for answer in answers]}
    columns |= {name: list(part) for name, part in zip(GENERATED, zip(*verdicts, strict=True), strict=True)}
    if whole:
        columns["stopped"] = [answer.ended for answer in answers]
        columns["own_logprob"] = [now.get(row.prompt) for row in rows]
    return columns


def _erased_columns(
    evaluated: EvaluatedModel, erased: dict[int, ProbedTarget], logprobs: np.ndarray, columns: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Columns of erased facts: the probability of each old answer, and whether the model's own answer says it."""
    prompts, targets = zip(*((row.prompt, separated(row.prompt, row.target)) for row in erased.values()), strict=True)
    chat_template = evaluated.options.chat_template
    pairs = models.encode_pairs(evaluated.tokenizer, prompts, targets, chat_template=chat_template)
    probabilities: list[float | None] = [None] * len(columns["probe"])
    for place, pair, logprob in zip(erased, pairs, logprobs, strict=True):
        probabilities[place] = math.exp(logprob * (len(pair.input_ids) - pair.start))
    said = columns.get("containment", [None] * len(probabilities))
    is_said = [said[place] if place in erased else None for place in range(len(said))]
    return {"old_probability": probabilities, "old_said": is_said}


def _text_columns(evaluated: EvaluatedModel, records: Sequence[EditRecord], seed: int) -> dict[str, list[Any]]:
    """Columns of rows of sampled text, with fluency and consistency."""
    openings = [(record.edit_id, prompt) for record in records for prompt in record.generation_prompts]
    texts = sample_texts(evaluated, openings, seed)
    # An edit's texts count together, as in ROME: one text of a hundred tokens holds few of the reference's words.
    by_edit: dict[str, list[str]] = {record.edit_id: [] for record in records}
    for (edit_id, _), text in zip(openings, texts, strict=True):
        by_edit[edit_id].append(text)
    agreement: dict[str, float | None] = {}
    if any(record.reference_texts for record in records):
        references = [record.reference_texts for record in records]
        agreement = dict(zip(by_edit, consistency(list(by_edit.values()), references), strict=True))
    rows = [(edit_id, "generation", prompt, "", "", agreement.get(edit_id)) for edit_id, prompt in openings]
    names = ("edit_id", "kind", "probe", "role", "aspect", "consistency")
    columns: dict[str, list[Any]] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    return columns | {"text": texts, "fluency": list(map(ngram_entropy, texts))}


# A tuple rather than an object that measures: what was measured does not change with the model.
class Measurement(NamedTuple):
    """
    One model's predictions, per-edit means and scores on a set of edits.

    Args:
        records (`list[EditRecord]`): The edits as they were measured: every neighborhood probe has a target. Measure
            another model, or the same one after training, on these, and both are held to the same answers.
        predictions (`dict[str, list]`): Columns of predictions, see [`predict`].
        means (`EditMeans`): Each edit's own scores.
        scores (`dict`): See [`~hf_ftedit.score`]; of an edited model also
            [`~hf_ftedit.evaluation.drift.measure_drift`]; with texts [`~hf_ftedit.evaluation.perplexity.perplexity`],
            with facts [`~hf_ftedit.evaluation.known_facts.known_facts`] too.
        reference (`DriftReference`, *optional*): What the drift of an edited model is measured by.
    """

    records: list[EditRecord]
    predictions: dict[str, list[Any]]
    means: EditMeans
    scores: dict[str, Any]
    reference: DriftReference | None = None


@models.in_turn
def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    options: EditOptions | None = None,
    *,
    before: Measurement | None = None,
    drift: bool = True,
    texts: Sequence[str] = (),
    known: Sequence[Fact] = (),
    seed: int = 0,
    desc: str = "Evaluating",
) -> Measurement:
    """
    Predict and score, as the options say.

    `records` are left as they are: a neighborhood probe without target is measured against the unedited model's own
    answer, and [`Measurement`] holds the records with those answers.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]): Causal language model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        records (`Sequence[EditRecord]`): Edits with their probes, see [`~hf_ftedit.read_edits`].
        options ([`~hf_ftedit.EditOptions`], *optional*): `protocol`, `chat_template`, `end_of_answer`,
            `eval_tokens_per_batch`, `predict_with_generate` and `measure_fluency`; the defaults where not given.
        before ([`Measurement`], *optional*): That of the unedited model, with which an edited one is compared. Without
            it, the adapter of `model` is switched off to ask what stayed; a model without one counts as unedited.
        drift (`bool`, *optional*, defaults to `True`): Measure the drift of an edited model, and keep of the unedited
            one what it is measured by.
        texts (`Sequence[str]`, *optional*): Texts for perplexity.
        known (`Sequence[Fact]`, *optional*): Facts of which to count those that the model knows.
        seed (`int`, *optional*, defaults to `0`): Seed of sampled texts.
        desc (`str`, *optional*, defaults to `"Evaluating"`): Label of the progress bar.

    Raises:
        [`~hf_ftedit.EditError`]: as [`predict`].
    """
    if not isinstance(options := EditOptions() if options is None else options, EditOptions):
        raise EditError(f"options is of type {type(options).__name__}: give EditOptions")
    if not isinstance(before, Measurement | None):
        raise EditError(f"before is no Measurement but {type(before).__name__}; give what measure returned")
    texts = _checked("texts", texts, str, "texts, as read_texts returns them")
    known = _checked("known", known, Fact, "facts, as read_facts returns them")
    evaluated = EvaluatedModel(model, tokenizer, options, desc)
    records, predictions = _predicted(evaluated, records, before.predictions if before else None, seed)
    means = edit_means(predictions)  # once: `score` and `compare` take the means as well as predictions
    scores = score(means, options.protocol)
    if made := sum(record.made_probes for record in records):
        scores["n_made_probes"] = made
    reference = before.reference if before and drift else None
    if drift and before is None:
        with models.unedited(model):
            reference = drift_reference(evaluated, records)
    if reference and (before is not None or not models.is_unedited(model)):
        scores |= measure_drift(evaluated, reference)
    if texts:
        scores |= perplexity(evaluated, texts)
    if known:
        scores |= known_facts(evaluated, known, records)
    return Measurement(records, predictions, means, scores, reference)


def results_of(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Measurements, those `"before"` and maybe those `"after"`, as `eval_results.json` holds them."""
    scores = {when: measurement.scores for when, measurement in measured.items()}
    *_, last = scores.values()
    results = {**scores, "protocol": last["protocol"], "n_edits": last["n_edits"]}
    if "after" in measured:
        results["change"] = compare(measured["before"].means, measured["after"].means, last["protocol"])
    return results
