"""Scores, answers and texts of a model for many probes: each distinct one computed once, by one of the processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from tqdm.auto import tqdm

from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.models import (
    Answer,
    Processes,
    first_sentences,
    sample_continuations,
    score_pairs,
    whole_answers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPTS_AT_ONCE = 2048  # tokenized at once: all of them would take more memory than what they are scored by


def score_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[ProbedTarget],
    *,
    chat_template: bool,
    tokens_per_batch: int,
    desc: str,
) -> np.ndarray:
    """Mean log-probability, match and token accuracy of each row's target, shape `(rows, 3)`."""
    first: dict[tuple[str, str], int] = {}
    # Many edits share neighbors: of equal (prompt, target) pairs the first row alone is scored, for all of them.
    scored_at = [first.setdefault((row.prompt, row.target), place) for place, row in enumerate(rows)]
    processes = Processes(model)
    parts = _parts(rows, first.values(), processes.count)

    def score(share: list[list[int]]) -> list[np.ndarray]:
        hidden = processes.hides_bar
        with tqdm(total=sum(map(len, share)), desc=desc, unit="pair", leave=False, disable=hidden) as bar:
            return [score_part([rows[place] for place in part], bar) for part in share]

    def score_part(part: list[ProbedTarget], bar: tqdm) -> np.ndarray:
        prompts, targets = [row.prompt for row in part], [row.target for row in part]
        scores = score_pairs(
            model,
            tokenizer,
            prompts,
            targets,
            chat_template=chat_template,
            tokens_per_batch=tokens_per_batch,
            names=[row.name for row in part],
            bar=bar,
        )
        return np.stack(scores, axis=1)

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


def answer_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    chat_template: bool,
    tokens_per_batch: int,
    desc: str,
) -> list[Answer]:
    """The model's own greedy answers: in chat to their natural end, else their first sentence or line."""
    if not prompts:
        return []
    settings: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "desc": f"{desc}: answers"}
    if chat_template:
        return whole_answers(model, tokenizer, prompts, chat_template=True, **settings)
    # A base model goes on with whatever may follow its answer.
    return first_sentences(model, tokenizer, prompts, **settings)


def sample_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    openings: Sequence[tuple[str, str]],
    *,
    seed: int,
    tokens_per_batch: int,
    desc: str,
) -> list[str]:
    """A sampled text for each (edit_id, opening); an opening that an edit has twice gets two."""
    order = sorted(range(len(openings)), key=lambda place: len(openings[place][1]))

    def sample(share: list[int]) -> list[str]:
        # Seeded by edit, place and opening: a text is the same on any number of processes.
        keys = [(openings[place][0], str(place), openings[place][1]) for place in share]
        seeds = [xxhash.xxh3_64_intdigest("\0".join(key).encode(), seed) >> 1 for key in keys]
        prompts = [opening for _, _, opening in keys]
        return sample_continuations(
            model, tokenizer, prompts, seeds, tokens_per_batch=tokens_per_batch, desc=f"{desc}: texts"
        )

    text_of = dict(zip(order, Processes(model).each_once(order, sample), strict=True))
    return [text_of[place] for place in range(len(openings))]
