"""Prompts and targets to log-likelihoods and matches: batches sorted by length, logits only at the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_ftedit.collator import CompletionOnlyCollator
from hf_ftedit.logits import target_logits, token_log_probs
from hf_ftedit.tokenization import EncodedPair, context_length, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


@torch.no_grad()
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
) -> PairScores:
    """
    Log-likelihood and teacher-forced matches of targets after prompts, in batches sorted by length.

    Args:
        model (`PreTrainedModel`):
            Causal language model, with or without adapters; its mode (train or eval) is restored afterwards.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer; either padding side.
        prompts (`Sequence[str]`):
            Prompts without trailing space.
        targets (`Sequence[str]`):
            Targets without leading space. Pairs should be distinct: each one is computed.
        chat_template (`bool`, *optional*, defaults to `False`):
            Score the target as the assistant's answer to the prompt.
        tokens_per_batch (`int`, *optional*, defaults to `4096`):
            Tokens of a batch, padding included.
        names (`Sequence[str]`, *optional*):
            What to call each pair in an error.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Raises:
        [`~hf_ftedit.records.EditError`]: a pair does not fit into the model's context.
    """
    pairs = encode_pairs(
        tokenizer,
        prompts,
        [f" {target}" for target in targets],
        chat_template=chat_template,
        max_length=context_length(model.config),
        names=names,
    )
    collator = CompletionOnlyCollator.from_tokenizer(tokenizer)
    scores = PairScores(np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs)))
    was_training = model.training
    model.eval()
    with tqdm(total=len(pairs), desc=desc, unit="pair", leave=False, disable=None) as bar:
        for batch in length_batches(pairs, tokens_per_batch):
            inputs = collator([{"input_ids": pairs[i].input_ids, "labels": pairs[i].labels} for i in batch])
            _score_batch(model, inputs, np.array(batch), scores)
            bar.update(len(batch))
    model.train(was_training)
    return scores


def length_batches(pairs: Sequence[EncodedPair], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of `pairs` in batches of at most so many padded tokens (at least one pair), longest first."""
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i].input_ids), pairs[i].start), reverse=True)
    begin = 0
    while begin < len(order):
        size = max(1, tokens_per_batch // len(pairs[order[begin]].input_ids))
        yield order[begin : begin + size]
        begin += size


def _score_batch(model: PreTrainedModel, inputs: dict[str, torch.Tensor], batch: np.ndarray, into: PairScores) -> None:
    """Write the scores of one batch to the positions `batch` of `into`."""
    found = target_logits(model, {name: tensor.to(model.device) for name, tensor in inputs.items()})
    logprobs = token_log_probs(found).double().cpu().numpy()
    hits = (found.logits.argmax(dim=-1) == found.labels).cpu().numpy()
    rows = found.rows.cpu().numpy()
    tokens = np.bincount(rows, minlength=len(batch))
    into.logprob[batch] = np.bincount(rows, weights=logprobs, minlength=len(batch)) / tokens
    into.token_accuracy[batch] = np.bincount(rows, weights=hits, minlength=len(batch)) / tokens
    into.match[batch] = into.token_accuracy[batch] == 1.0
