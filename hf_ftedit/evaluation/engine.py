"""Scores, answers and texts of a model for many probes: each distinct one computed once, by one of the processes."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xxhash
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hf_ftedit import models
from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation.probes import ProbedTarget, filled, open_prompts
from hf_ftedit.options import EditOptions
from hf_ftedit.text import counted

logger = logging.getLogger(__name__)

PROMPTS_AT_ONCE = 2048  # tokenized at once: all of them would take more memory than what they are scored by


class EvaluatedModel(NamedTuple):
    """A model with all that asking it needs."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    options: EditOptions
    desc: str = "Evaluating"  # label of progress bars

    @property
    def settings(self) -> dict[str, Any]:
        """The options that scoring and generating share."""
        return {"chat_template": self.options.chat_template, "tokens_per_batch": self.options.eval_tokens_per_batch}


def score_targets(evaluated: EvaluatedModel, rows: Sequence[ProbedTarget]) -> np.ndarray:
    """Mean log-probability, match and token accuracy of each row's target, shape `(rows, 3)`."""
    first: dict[tuple[str, str], int] = {}
    # Many edits share neighbors: of equal (prompt, target) pairs the first row alone is scored, for all of them.
    scored_at = [first.setdefault((row.prompt, row.target), place) for place, row in enumerate(rows)]
    processes = models.Processes(evaluated.model)
    parts = _parts(rows, first.values(), processes.count)

    def score_part(part: list[ProbedTarget], bar: tqdm) -> np.ndarray:
        prompts, targets = [row.prompt for row in part], [row.target for row in part]
        settings: dict[str, Any] = {"names": [row.name for row in part], "bar": bar, **evaluated.settings}
        return np.stack(models.score_pairs(evaluated.model, evaluated.tokenizer, prompts, targets, **settings), axis=1)

    def score(share: list[list[int]]) -> list[np.ndarray]:
        hidden = processes.hides_bar
        with tqdm(total=sum(map(len, share)), desc=evaluated.desc, unit="pair", leave=False, disable=hidden) as bar:
            return [score_part([rows[place] for place in part], bar) for part in share]

    values = np.empty((len(rows), 3))
    for part, scores in zip(parts, processes.each_once(parts, score), strict=True):
        values[part] = scores
    return values[scored_at]


def _parts(rows: Sequence[ProbedTarget], places: Iterable[int], processes: int) -> list[list[int]]:
    """Places of rows in parts, one or more a process; prompts that begin alike stand together."""
    of_prompt: dict[str, list[int]] = {}
    for place in places:
        of_prompt.setdefault(rows[place].prompt, []).append(place)
    # Not shuffled, although that would share the work out more evenly: neighbors in this order share a prefix tree.
    prompts = sorted(of_prompt)
    size = min(PROMPTS_AT_ONCE, -(-len(prompts) // processes))
    starts = range(0, len(prompts), size)
    return [[place for prompt in prompts[start : start + size] for place in of_prompt[prompt]] for start in starts]


def answer_prompts(evaluated: EvaluatedModel, prompts: Sequence[str]) -> list[models.Answer]:
    """The model's own greedy answers: in chat to their natural end, else their first sentence or line."""
    if not prompts:
        return []
    # A base model goes on with whatever may follow its answer.
    settings = evaluated.settings | {"sentences": not evaluated.options.chat_template}
    desc = f"{evaluated.desc}: answers"
    return models.whole_answers(evaluated.model, evaluated.tokenizer, prompts, desc=desc, **settings)


def _unedited_answers(
    evaluated: EvaluatedModel, records: Sequence[EditRecord], before: Mapping[str, Sequence[Any]] | None
) -> dict[str, models.Answer]:
    """
    The unedited model's own answers, by prompt: to near names, to what is erased, if whole to neighborhood probes too.

    Those that stand in the predictions `before` are taken from there. Under `accelerate launch` every process must
    call this. An adapter is switched off meanwhile; a model without one is taken as the unedited model.
    """
    prompts = {prompt for record in records for prompt in record.near_name_prompts}
    prompts |= {prompt for edit in records if edit.erase for prompt in (edit.prompt, *edit.paraphrase_prompts)}
    if evaluated.options.has_whole_answers:
        prompts |= {probe.prompt for record in records for probe in record.neighborhood_prompts}
    known: dict[str, models.Answer] = {}
    if before is not None and "generated" in before:
        stopped = before.get("stopped") or [None] * len(before["probe"])
        rows = zip(before["probe"], before["generated"], stopped, strict=True)
        # Rows of sampled texts, which may go on from the same prompt, have no answer.
        answered = (row for row in rows if row[0] in prompts and row[1] is not None)
        known = {prompt: models.Answer(text, [], bool(end)) for prompt, text, end in answered}
    missing = sorted(prompts - known.keys())
    with models.unedited(evaluated.model):
        answers = answer_prompts(evaluated._replace(desc="Unedited"), missing)
    return known | dict(zip(missing, answers, strict=True))


def with_answers(
    evaluated: EvaluatedModel, records: Sequence[EditRecord], before: Mapping[str, Sequence[Any]] | None
) -> tuple[list[EditRecord], dict[str, models.Answer]]:
    """Records whose neighborhood probes all have targets, and, where own answers count, the unedited model's."""
    if not evaluated.options.has_whole_answers:
        records = fill_neighborhood_targets(evaluated, records)
        is_compared = evaluated.options.predict_with_generate
        return records, _unedited_answers(evaluated, records, before) if is_compared else {}
    answers = _unedited_answers(evaluated, records, before)
    # Of a whole answer, which the probe keeps, the first sentence is an open probe's target.
    records = _filled(records, {prompt: models.first_sentence(answer.text) for prompt, answer in answers.items()})
    probes = ([p._replace(answer=answers[p.prompt].text) for p in edit.neighborhood_prompts] for edit in records)
    filled = [replace(edit, neighborhood_prompts=tuple(own)) for edit, own in zip(records, probes, strict=True)]
    return filled, answers


def fill_neighborhood_targets(evaluated: EvaluatedModel, records: Sequence[EditRecord]) -> list[EditRecord]:
    """
    Records whose neighborhood probes all have targets: where the data gives none, the unedited model's own answer.

    Every process must call this. An adapter is switched off meanwhile; a model without one is taken as the unedited
    model. After full fine-tuning, or once an adapter is merged, give the records of a [`~hf_ftedit.Measurement`] made
    before. Raises [`~hf_ftedit.EditError`] where a prompt fills the model's context.
    """
    if not (prompts := open_prompts(records)):
        return list(records)
    # At most eight tokens: enough for a name or a date, and few enough to be compared token by token afterwards.
    settings: dict[str, Any] = {"desc": "Answering locality probes"}
    settings["tokens_per_batch"] = evaluated.options.eval_tokens_per_batch
    with models.unedited(evaluated.model) as model:
        answers = models.greedy_answers(model, evaluated.tokenizer, prompts, **settings)
    return _filled(records, dict(zip(prompts, answers, strict=True)))


def _filled(records: Sequence[EditRecord], targets: Mapping[str, str]) -> list[EditRecord]:
    if silent := [prompt for prompt in open_prompts(records) if not targets[prompt]]:
        number = counted(len(silent), "neighborhood probe")
        logger.warning("left out %s that the model does not answer: %r", number, silent[0])
    return [filled(record, targets) for record in records]


def sample_texts(evaluated: EvaluatedModel, openings: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """A sampled text for each (edit_id, opening); an opening that an edit has twice gets two."""
    # Seeded by edit, place and opening: a text is the same on any number of processes.
    keys = [f"{edit_id}\0{place}\0{opening}".encode() for place, (edit_id, opening) in enumerate(openings)]
    seeds = [xxhash.xxh3_64_intdigest(key, seed) >> 1 for key in keys]
    size, prompts = evaluated.options.eval_tokens_per_batch, [opening for _, opening in openings]
    settings: dict[str, Any] = {"tokens_per_batch": size, "desc": f"{evaluated.desc}: texts"}
    return models.sample_continuations(evaluated.model, evaluated.tokenizer, prompts, seeds, **settings)
