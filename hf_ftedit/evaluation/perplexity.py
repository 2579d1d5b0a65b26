"""Perplexity on plain texts: whether a model still speaks as it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.statistics import bootstrap, interval
from hf_ftedit.models import (
    EncodedPair,
    Processes,
    check_tokens,
    context_length,
    encode_texts,
    in_batches,
    inference,
    score_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    tokens_per_batch: int = 2048,
    n_resamples: int = 1000,
    seed: int = 0,
    desc: str = "Perplexity",
) -> dict[str, Any]:
    """
    Perplexity of a model on texts: exp of the mean negative log-likelihood of their tokens.

    Every token but a text's first counts once, also the first where the tokenizer puts a beginning of sequence before
    it. A text longer than the model's context is read in windows that share one token. Under `accelerate launch` every
    process must call this.

    Returns:
        `dict`: `perplexity`, its bootstrap interval `perplexity_ci95`, `n_texts` and `n_tokens` that were counted.

    Raises:
        [`~hf_ftedit.EditError`]: no text has two tokens, or the model gives NaN.
    """
    check_tokens(tokenizer, model.config, ((f"text {number}", text) for number, text in enumerate(texts, 1)))
    windows = [
        (number, window)
        for number, parts in enumerate(encode_texts(tokenizer, texts, context_length(model.config)))
        for window in parts
    ]
    if not windows:
        raise EditError("no text has two tokens to measure perplexity on; give longer ones")
    sums = np.zeros((len(windows), 2))  # negative log-likelihood, tokens
    _sum_up(model, [pair for _, pair in windows], sums, tokens_per_batch, desc)
    if np.isnan(sums).any():
        raise EditError("the perplexity is not a number; load the model in float32 (--dtype float32)")
    owner = np.array([number for number, _ in windows])
    _, owner = np.unique(owner, return_inverse=True)
    by_text = np.stack([np.bincount(owner, weights=column) for column in sums.T], axis=1)

    def of_means(values: np.ndarray) -> np.ndarray:
        return np.exp(values[:, :1] / values[:, 1:])

    return {
        "perplexity": float(of_means(by_text.mean(axis=0)[None])[0, 0]),
        "perplexity_ci95": interval(bootstrap(by_text, of_means, n_resamples, seed))[0],
        "n_texts": len(by_text),
        "n_tokens": int(by_text[:, 1].sum()),
    }


def _sum_up(model: Any, windows: list[EncodedPair], sums: np.ndarray, tokens_per_batch: int, desc: str) -> None:
    """Fill `sums`, of shape `(windows, 2)`, with the negative log-likelihood and the tokens of each window."""
    processes = Processes(model)
    share = processes.share(sorted(range(len(windows)), key=lambda number: len(windows[number].input_ids)))
    bar = tqdm(total=len(share), desc=desc, leave=False, disable=processes.hides_bar)
    with inference(model), bar, processes.failing_together():

        def run(batch: list[int]) -> None:
            scores = score_rows(model, windows, [share[place] for place in batch])
            numbers, place, tokens = np.unique(scores.pair, return_inverse=True, return_counts=True)
            sums[numbers] = np.stack([-np.bincount(place, weights=scores.logprob), tokens], axis=1)
            bar.update(len(batch))

        in_batches([len(windows[number].input_ids) for number in share], tokens_per_batch, run)
    processes.gather(((number, sums[number]) for number in share), sums)
