"""Perplexity on plain texts: whether a model still speaks as it did."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ftedit import models
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.engine import EvaluatedModel
from hf_ftedit.evaluation.statistics import estimate, ratio

LONGEST_WINDOW = 4096  # tokens: a window is one batch, and contexts of 128,000 would not fit


def perplexity(evaluated: EvaluatedModel, texts: Sequence[str]) -> dict[str, Any]:
    """
    Perplexity of a model on texts: exp of the mean negative log-likelihood of their tokens.

    Every token but a text's first counts once, also the first where the tokenizer puts a beginning of sequence before
    it. Texts longer than the context, or than 4,096 tokens, are read in windows that share one token. Every process
    must call this.

    The result has `perplexity`, its bootstrap interval `perplexity_ci95`, and `n_texts` and `n_tokens` that were
    counted. Raises [`~hf_ftedit.EditError`] where no text has two tokens, or the model gives NaN.
    """
    model, tokenizer, options, _ = evaluated
    models.check_tokens(tokenizer, model.config, ((f"text {number}", text) for number, text in enumerate(texts, 1)))
    length = min(filter(None, (LONGEST_WINDOW, models.context_length(model.config))))
    parts = models.encode_texts(tokenizer, texts, length)
    windows = [window for windows in parts for window in windows]
    if not windows:
        raise EditError("no text has two tokens to measure perplexity on; give longer ones")
    processes = models.Processes(model)

    def run(share: list[models.EncodedPair]) -> list[float]:
        sums = np.zeros(len(share))
        bar = tqdm(total=len(share), desc="Perplexity", leave=False, disable=processes.hides_bar)

        def add(predicted: models.Predictions) -> None:
            logprobs, _ = models.token_scores(predicted)
            np.subtract.at(sums, predicted.pairs, logprobs)
            bar.update(len({*predicted.pairs}))

        with bar:  # texts begin alike by chance only: in trees, they would take more time
            models.run_pairs(model, share, options.eval_tokens_per_batch, add, in_trees=False)
        return sums.tolist()

    losses = processes.each_once(windows, run, key=lambda window: len(window.input_ids))
    if np.isnan(losses).any():
        raise EditError("the perplexity is not a number; load the model in float32 (--dtype float32)")
    owner = [number for number, part in enumerate(filter(None, parts)) for _ in part]
    tokens = [len(window.input_ids) - 1 for window in windows]
    by_text = np.stack([np.bincount(owner, weights=column) for column in (losses, tokens)], axis=1)
    return {
        **estimate("perplexity", by_text, lambda means: np.exp(ratio(means))),
        "n_texts": len(by_text),
        "n_tokens": int(by_text[:, 1].sum()),
    }
