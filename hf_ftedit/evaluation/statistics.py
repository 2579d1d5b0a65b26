"""Bootstrap intervals and paired permutation tests over edits, for many scores at once: arrays in, arrays out."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK = 1 << 20  # draws held at once, so that memory does not grow with the edits


def means(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """
    Column means `(scores,)` of `values` `(edits, scores)`, NaN left out; NaN where nothing counts.

    With `weights` `(resamples, edits)`, how often each edit counts in each resample, those of each: `(resamples,
    scores)`.
    """
    defined = ~np.isnan(values)
    weights = np.ones(len(values)) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ np.where(defined, values, 0.0)) / (weights @ defined.astype(float))


def ratio(means: np.ndarray) -> np.ndarray:
    """A statistic of two columns: the first one's mean by the second one's, shape `(resamples, 1)`."""
    return means[:, :1] / means[:, 1:]


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], n: int = 1000, seed: int = 0
) -> np.ndarray:
    """
    `statistic` of the column means of `n` resamples of the edits, drawn with replacement (Efron 1979).

    `values` are of shape `(edits, scores)`, NaN where an edit has no such score; `statistic` makes means `(resamples,
    scores)` to statistics `(resamples, statistics)`. With one seed and as many edits, other scores are drawn together.
    """
    rng, edits, statistics = np.random.default_rng(seed), len(values), []
    for size in _blocks(n, edits):
        drawn = rng.integers(edits, size=(size, edits)) + np.arange(size)[:, None] * edits
        weights = np.bincount(drawn.ravel(), minlength=size * edits).reshape(size, edits)
        statistics.append(statistic(means(values, weights.astype(float))))
    return np.concatenate(statistics)


def interval(resampled: np.ndarray) -> list[list[float] | None]:
    """The 95 % percentile interval `[low, high]` of each column of `resampled`; `None` where a column is all NaN."""
    ends: list[list[float] | None] = []
    for column in resampled.T:
        defined = column[~np.isnan(column)]
        ends.append([float(value) for value in np.percentile(defined, [2.5, 97.5])] if defined.size else None)
    return ends


def estimate(
    name: str, values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means
) -> dict[str, Any]:
    """One `statistic` of the means of `values` as `name`, and its [`bootstrap`] [`interval`] as `{name}_ci95`."""
    value = statistic(means(values)[None])[0, 0]
    return {name: float(value), f"{name}_ci95": interval(bootstrap(values, statistic))[0]}


def permutation_test(
    before: np.ndarray, after: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], n: int, seed: int
) -> np.ndarray:
    """
    Two-sided p-values of a paired permutation test: before and after of each edit are exchanged at random `n` times.

    Both are of shape `(edits, scores)`, with NaN at the same places; `statistic` is as that of [`bootstrap`]. The
    values are (1 + exceedances) / (1 + n) (Phipson & Smyth 2010).
    """
    rng = np.random.default_rng(seed)
    counts = (~np.isnan(before)).sum(axis=0)
    first, second = np.nan_to_num(before), np.nan_to_num(after)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.abs(statistic(means(after)[None]) - statistic(means(before)[None]))[0]
        exceeded = np.zeros(len(observed))
        for size in _blocks(n, len(before)):
            moved = rng.integers(2, size=(size, len(before)), dtype=np.int8).astype(float) @ (second - first)
            lower, upper = (first.sum(axis=0) + moved) / counts, (second.sum(axis=0) - moved) / counts
            exceeded += (np.abs(statistic(upper) - statistic(lower)) >= observed - 1e-9).sum(axis=0)
    return (1 + exceeded) / (1 + n)


def _blocks(n: int, edits: int) -> Iterator[int]:
    """Sizes of blocks that make up `n` resamples."""
    size = max(1, BLOCK // max(1, edits))
    for begin in range(0, n, size):
        yield min(size, n - begin)
