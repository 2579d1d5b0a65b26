"""Prompts and targets to log-likelihoods and matches: each prompt read once for all of its targets, in batches."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size
from tqdm.auto import tqdm
from transformers.cache_utils import DynamicLayer

from hf_ftedit.loading import evaluation_mode
from hf_ftedit.logits import last_logits
from hf_ftedit.records import EditError
from hf_ftedit.tokenization import EncodedPair, context_length, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class PairScores(NamedTuple):
    """
    What a model makes of some (prompt, target) pairs; arrays of shape `(pairs,)`.

    Args:
        logprob (`np.ndarray`):
            Mean log-probability per target token, natural logarithm, float64.
        match (`np.ndarray`):
            Whether every target token is the most likely one, given the prompt and the target tokens before it.
        token_accuracy (`np.ndarray`):
            Share of the target tokens that are the most likely ones.
    """

    logprob: np.ndarray
    match: np.ndarray
    token_accuracy: np.ndarray


class _Prompt(NamedTuple):
    """Tokens that stand before one or more targets, and the indices of those pairs."""

    ids: tuple[int, ...]
    pairs: list[int]


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 4096,
    names: Sequence[str] | None = None,
    desc: str = "Evaluating",
    bar: Any = None,
    on_scored: Callable[[Sequence[int], PairScores], None] | None = None,
) -> PairScores:
    """
    Log-likelihood and teacher-forced matches of targets after prompts.

    A prompt is read once for all of its targets: their first tokens are predicted from its last position, and what
    further tokens need of it is taken from its keys and values. Prompts of one length make a batch, so nothing is
    padded; a batch that does not fit into memory is tried again with half as many tokens.

    Args:
        model (`PreTrainedModel`):
            Causal language model, with or without adapters; its mode (train or eval) is restored afterwards.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer; either padding side.
        prompts (`Sequence[str]`):
            Prompts without trailing space.
        targets (`Sequence[str]`):
            Targets without leading space. Pairs should be distinct: each one is scored.
        chat_template (`bool`, *optional*, defaults to `False`):
            Score the target as the assistant's answer to the prompt.
        tokens_per_batch (`int`, *optional*, defaults to `4096`):
            Tokens of a batch.
        names (`Sequence[str]`, *optional*):
            What to call each pair in an error.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.
        bar (`tqdm`, *optional*):
            A progress bar to go on with, instead of one of its own.
        on_scored (`Callable`, *optional*):
            Told the indices of the pairs of each batch that was scored, and the scores as far as they are known.

    Raises:
        [`~hf_ftedit.records.EditError`]: a pair does not fit into the model's context, or not even one into memory.
    """
    pairs = encode_pairs(
        tokenizer,
        prompts,
        [f" {target}" for target in targets],
        chat_template=chat_template,
        max_length=context_length(model.config),
        names=names,
    )
    scores = PairScores(np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs)))
    waiting = _longest_first(pairs)
    own_bar = bar is None
    bar = tqdm(total=len(pairs), desc=desc, unit="pair", leave=False, disable=None) if own_bar else bar

    def run(budget: int) -> None:
        while waiting:
            batch = _next_batch(waiting, budget)
            done = _score_batch(model, batch, pairs, scores, budget)
            del waiting[len(waiting) - len(batch) :]
            bar.update(len(done))
            if on_scored is not None:
                on_scored(done, scores)

    with torch.no_grad(), evaluation_mode(model):
        within_memory(run, tokens_per_batch)
    if own_bar:
        bar.close()
    return scores


def within_memory(run: Callable[[int], None], tokens_per_batch: int) -> None:
    """
    Call `run(tokens_per_batch)`, and again with half of it each time that memory does not suffice.

    Raises:
        [`~hf_ftedit.records.EditError`]: not even one token fits.
    """
    budget = tokens_per_batch

    def halved() -> int:
        nonlocal budget
        budget //= 2
        if not budget:
            raise EditError(
                "the memory does not suffice for a single prompt; load the model in 4 bits (--load_in_4bit) "
                "or in bfloat16 (--dtype bfloat16), or use a machine with more memory"
            )
        logger.warning("out of memory: going on with %d tokens a batch", budget)
        return budget

    find_executable_batch_size(run, starting_batch_size=budget, reduce_batch_size_fn=halved)()


def _longest_first(pairs: Sequence[EncodedPair]) -> list[_Prompt]:
    """The distinct prompts of `pairs`, the longest last: batches are taken from the end."""
    owners: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        owners.setdefault(tuple(pair.input_ids[: pair.start]), []).append(index)
    return sorted((_Prompt(*item) for item in owners.items()), key=lambda prompt: len(prompt.ids))


def _next_batch(waiting: list[_Prompt], budget: int) -> list[_Prompt]:
    """The last prompts of `waiting`, of one length and together of at most `budget` tokens, at least one."""
    length = len(waiting[-1].ids)
    begin = len(waiting) - 1
    while begin and len(waiting[begin - 1].ids) == length and (len(waiting) - begin + 1) * length <= budget:
        begin -= 1
    return waiting[begin:]


def _score_batch(
    model: Any, batch: list[_Prompt], pairs: Sequence[EncodedPair], into: PairScores, budget: int
) -> list[int]:
    """Write the scores of the batch's pairs into `into`; the indices of those pairs."""
    indices = [index for prompt in batch for index in prompt.pairs]
    rows = torch.tensor([row for row, prompt in enumerate(batch) for _ in prompt.pairs], device=model.device)
    targets = [pairs[index].input_ids[pairs[index].start :] for index in indices]
    longer = sorted((n for n, target in enumerate(targets) if len(target) > 1), key=lambda n: len(targets[n]))
    input_ids = torch.tensor([prompt.ids for prompt in batch], device=model.device)
    output = last_logits(model, 1, input_ids=input_ids, use_cache=bool(longer))
    first = torch.tensor([target[0] for target in targets], device=model.device)
    logprobs, hits = _judged(output.logits[:, -1], rows, first)
    cache = output.get("past_key_values") if longer else None
    del output
    while longer:
        part = _fitting(longer, targets, input_ids.shape[1], budget)
        more_logprobs, more_hits = _continued(model, input_ids, cache, rows[part], [targets[n] for n in part])
        logprobs[part] += more_logprobs
        hits[part] += more_hits
        del longer[len(longer) - len(part) :]
    tokens = np.array([len(target) for target in targets])
    into.logprob[indices] = logprobs / tokens
    into.token_accuracy[indices] = hits / tokens
    into.match[indices] = hits == tokens
    return indices


def _fitting(longer: list[int], targets: list[list[int]], length: int, budget: int) -> list[int]:
    """As many of the last, longest ones of `longer` as fit into the budget with their prompts, at least one."""
    width = length + len(targets[longer[-1]]) - 1
    return longer[-max(1, budget // width) :]


def _continued(
    model: Any, input_ids: torch.Tensor, cache: Any, rows: torch.Tensor, targets: list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability and hits of all target tokens but the first, each after its row of `input_ids`."""
    width = max(map(len, targets)) - 1
    before = _padded([target[:-1] for target in targets], width, model.device)
    wanted = _padded([target[1:] for target in targets], width, model.device, -1)
    if _is_plain(model, cache):
        output = last_logits(model, width, input_ids=before, past_key_values=_taken(cache, rows), use_cache=True)
    else:  # a recurrent state has no rows to take: read those prompts again
        output = last_logits(model, width, input_ids=torch.cat([input_ids[rows], before], dim=1), use_cache=False)
    row, column = (wanted >= 0).nonzero(as_tuple=True)
    logits = output.logits[row, column]
    logprobs, hits = _judged(logits, torch.arange(len(row), device=logits.device), wanted[row, column])
    owner = row.cpu().numpy()
    summed = (np.bincount(owner, weights=values, minlength=len(targets)) for values in (logprobs, hits))
    return next(summed), next(summed)


def _judged(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each token after its row of `logits`, shape `(rows, vocabulary)`, and whether it is first."""
    logits = logits.float()
    chosen = logits[rows, tokens].double() - torch.logsumexp(logits, dim=-1)[rows].double()
    hits = logits.argmax(dim=-1)[rows] == tokens
    return chosen.cpu().numpy(), hits.double().cpu().numpy()


def _is_plain(model: Any, cache: Any) -> bool:
    """Whether the cache is keys and values by row; recurrent layers keep states, learnt prompts their own tokens."""
    learns_prompts = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    layers = getattr(cache, "layers", ())
    return bool(layers) and not learns_prompts and all(isinstance(layer, DynamicLayer) for layer in layers)


def _taken(cache: Any, rows: torch.Tensor) -> Any:
    """A copy of the cache with these rows of it; the original's tensors are shared until then."""
    taken = copy.copy(cache)
    taken.layers = [copy.copy(layer) for layer in cache.layers]
    taken.batch_select_indices(rows)
    return taken


def _padded(rows: list[list[int]], width: int, device: Any, value: int = 0) -> torch.Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], device=device)
