"""The unedited model's distributions at target positions: what an edit should leave as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hf_ftedit.models.batching import inference
from hf_ftedit.models.likelihood import Predictions, run_pairs
from hf_ftedit.models.tokenization import EncodedPair

N_TOKENS = 64  # the likeliest tokens that are kept of a distribution
_LEAST = np.finfo(np.float16).min  # log-probability of the impossible: with -inf, 0 * -inf would be NaN


class Reference(NamedTuple):
    """A model's predictions at the target positions of a pair: its likeliest tokens, and all others together."""

    tokens: np.ndarray  # int32 (targets, k)
    logprobs: np.ndarray  # float16 (targets, k), natural logarithm
    rest: np.ndarray  # float16 (targets,): log-probability of all other tokens


def reference_distributions(
    model: Any, pairs: Sequence[EncodedPair], *, k: int = N_TOKENS, tokens_per_batch: int = 2048
) -> list[Reference]:
    """
    The `k` likeliest tokens of `model` at each target position of each pair, and the log-probability of all others.

    Those of the unedited model are what the edited one is compared with; of a model with an adapter they are made
    within [`~hf_ftedit.models.unedited`]. A vocabulary of fewer than `k` tokens is kept whole.
    """
    references: list[Any] = [None] * len(pairs)

    def add(predicted: Predictions) -> None:
        tokens, logprobs, rest = _summaries(predicted.logits, k)
        # All targets of a pair are in one batch, side by side.
        indices, first = np.unique(predicted.pairs, return_index=True)
        order = np.argsort(first)
        for index, rows in zip(indices[order], np.split(predicted.position, np.sort(first)[1:]), strict=True):
            references[index] = Reference(tokens[rows], logprobs[rows], rest[rows])

    with inference(model):
        run_pairs(model, pairs, tokens_per_batch, add)
    return references


def pair_divergences(
    model: Any, pairs: Sequence[EncodedPair], references: Sequence[Reference], *, tokens_per_batch: int = 2048
) -> list[np.ndarray]:
    """The [`divergences`] of `model` from the references of pairs, for each pair an array of shape `(targets,)`."""
    found: list[Any] = [None] * len(pairs)

    def add(predicted: Predictions) -> None:
        device = predicted.logits.device
        for index in dict.fromkeys(predicted.pairs):
            # Pair by pair: float32 copies of all logits would be what takes the most memory.
            rows = torch.from_numpy(predicted.position[np.equal(predicted.pairs, index)]).to(device)
            reference = (torch.from_numpy(part).to(device) for part in references[index])
            found[index] = divergences(predicted.logits[rows], *reference).cpu().numpy()

    with inference(model):
        run_pairs(model, pairs, tokens_per_batch, add)
    return found


def _summaries(logits: torch.Tensor, k: int) -> list[np.ndarray]:
    """Arrays of the [`Reference`] of each row of `logits`."""
    parts: list[tuple[torch.Tensor, ...]] = []
    for part in logits.split(256):  # float32 copies of all would be what takes the most memory
        logprobs = part.float().log_softmax(dim=-1)
        top, tokens = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
        rest = logprobs.scatter_(1, tokens, -torch.inf).logsumexp(dim=-1)
        parts.append((tokens.int(), top.clamp(min=_LEAST).half(), rest.clamp(min=_LEAST).half()))
    return [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]


def divergences(
    logits: torch.Tensor, tokens: torch.Tensor, logprobs: torch.Tensor, rest: torch.Tensor
) -> torch.Tensor:
    """
    KL(reference || model) at each row of `logits` `(targets, vocabulary)`, in nats, float32 `(targets,)`.

    The other arguments are a [`Reference`] as tensors; all tokens that it does not name count as one.
    """
    top = logits.gather(1, tokens.long()).float()
    # Not 1 - the others' probability, which float32 loses where the model is sure.
    others = logits.float().scatter(1, tokens.long(), torch.finfo(torch.float32).min / 2).logsumexp(dim=-1)
    model = torch.cat([top, others[:, None]], dim=-1).log_softmax(dim=-1)
    # float16 rounds: normalized again, the divergence of equal distributions is 0 and no other is less.
    reference = torch.cat([logprobs, rest[:, None]], dim=-1).float().log_softmax(dim=-1)
    return (reference.exp() * (reference - model)).sum(dim=-1)
