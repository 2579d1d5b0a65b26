"""Per-probe predictions to success rates, accuracies, the edit score and its intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.predictions import GENERATED, NAMES, TEXT_SCORES, EditMeans, Predictions, edit_means
from hf_ftedit.evaluation.statistics import bootstrap, interval, means, permutation_test

SCORED = ("efficacy", "generalization", "locality")
PROTOCOLS = ("accuracy", "probability", *GENERATED)

Key: TypeAlias = tuple[str, str]
Intervals: TypeAlias = dict[Key, list[float] | None]


def score(
    predictions: Predictions | EditMeans, protocol: str = "auto", *, n_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """
    Score predictions: efficacy, generalization, locality, and their harmonic mean, the edit score.

    Values are averages over the probes of a record, then over records (Meng et al. 2022, Section 3.3). *probability*:
    a probe succeeds where its expected target is likelier than the other one, ties not counting; *accuracy*: share of
    the expected target's tokens that are the most likely ones (zsRE). The expected target is `"true"` for
    neighborhood probes and `"new"` for all others; of the several answers of a portability probe, the best counts.
    Where the model's own answers were generated, *exact_match* and *containment* are scored in the same way.

    Args:
        predictions (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]):
            One row per (probe, target), as columns, as rows, or as a JSONL or Parquet file: `edit_id`, `kind`,
            `probe`, `role` (`"new"` or `"true"`), `logprob` (mean per token), `match`, `token_accuracy`; and, where
            they were measured, `aspect` (of portability), `exact_match`, `containment`, `fluency`, `consistency`.
            Other columns are not read. Tables of 0.1.0, which call the role `target`, are read too.
        protocol (`str`, *optional*, defaults to `"auto"`):
            `"probability"`, `"accuracy"`, `"exact_match"`, `"containment"`, or `"auto"`: probability where every
            rewrite, paraphrase and neighborhood probe has both targets, else accuracy.
        n_resamples (`int`, *optional*, defaults to `1000`):
            Bootstrap resamples of the records.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Returns:
        `dict`: `protocol`; `edit_score`, `efficacy`, `generalization`, `locality`, `portability` from 0 to 100 or
        `None` where undefined; `*_ci95` as `[low, high]`; `edit_score_note` where the edit score is undefined;
        `n_edits`; `n_edits_scored` by score; `n_probes` by kind; `portability_aspects`; `fluency` (entropy in bits,
        times 100) and `consistency` where texts were generated; and the values of each protocol under its name.

    Raises:
        [`~hf_ftedit.EditError`]: a value is not a number, a probe has two different predictions or none of its
            expected target, or the protocol cannot be computed.
    """
    found = predictions if isinstance(predictions, EditMeans) else edit_means(predictions)
    chosen = _chosen(found, protocol)
    drawn = _resampled(found, n_resamples, seed)
    scores = {name: _protocol_scores(found, name, drawn) for name in PROTOCOLS if (name, SCORED[0]) in found.values}
    return {
        "protocol": chosen,
        **scores[chosen],
        **_values(found, _reported(chosen)[len(SCORED) :], drawn),
        "edit_score_note": _note(scores[chosen]),
        "n_edits": len(found.edit_ids),
        "n_edits_scored": {name: _count(found, protocol, name) for protocol, name in _reported(chosen)},
        "n_probes": {kind: n for kind, n in found.n_probes.items() if "/" not in kind},
        "portability_aspects": _aspects(found, drawn),
        **scores,
    }


def compare(
    before: Predictions | EditMeans,
    after: Predictions | EditMeans,
    protocol: str = "auto",
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """
    What changed between two measurements of the same edits, and whether chance could have made it.

    Args:
        before (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]):
            Predictions before, as [`score`] takes them.
        after (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]):
            Predictions after.
        protocol (`str`, *optional*, defaults to `"auto"`):
            As in [`score`], for both; `"auto"` is that of `after`.
        n_resamples (`int`, *optional*, defaults to `2000`):
            Bootstrap resamples, and permutations of the test.
        seed (`int`, *optional*, defaults to `0`):
            Their seed.

    Returns:
        `dict`: by score (`edit_score`, `efficacy`, ...) `difference` (after minus before, in points), its 95 %
        bootstrap interval `difference_ci95`, `p_value` (two-sided paired permutation test over edits), and `n_edits`,
        the edits that have it in both. Scores that no edit has in both are left out.

    Raises:
        [`~hf_ftedit.EditError`]: the two are not about the same edits.
    """
    one, two = (item if isinstance(item, EditMeans) else edit_means(item) for item in (before, after))
    if one.edit_ids != two.edit_ids:
        raise EditError("before and after are not about the same edits; predict both with one list of edits")
    chosen = _chosen(two, protocol)
    keys = _reported(chosen)
    unknown = np.full(len(two.edit_ids), np.nan)
    tables = [[item.values.get(key, unknown) for key in keys] for item in (one, two)]
    values = 100 * np.stack(tables).transpose(0, 2, 1)
    values[:, np.isnan(values).any(axis=0)] = np.nan  # only what both have can be compared
    first, second = values
    difference = _with_edit_score(means(second)[None]) - _with_edit_score(means(first)[None])
    drawn = [bootstrap(item, _with_edit_score, n_resamples, seed) for item in values]
    intervals = interval(drawn[1] - drawn[0])
    p_values = permutation_test(first, second, _with_edit_score, n_resamples, seed)
    counts = (~np.isnan(first)).sum(axis=0)
    counts = [int(counts[: len(SCORED)].min()), *map(int, counts)]
    names = ["edit_score", *(name for _, name in keys)]
    return {
        name: {
            "difference": float(difference[0, index]),
            "difference_ci95": intervals[index],
            "p_value": float(p_values[index]),
            "n_edits": counts[index],
        }
        for index, name in enumerate(names)
        if not np.isnan(difference[0, index])
    }


def harmonic_mean(values: Sequence[float | None]) -> float | None:
    """Harmonic mean: 0 where a value is 0, `None` where one is undefined."""
    if any(value is None for value in values):
        return None
    return float(_harmonic(np.array([values], dtype=float))[0])


def _chosen(found: EditMeans, protocol: str) -> str:
    chosen = found.protocol if protocol == "auto" else protocol
    if chosen not in PROTOCOLS:
        raise EditError(f"protocol is {protocol!r}; choose one of auto, {', '.join(PROTOCOLS)}")
    if (chosen, SCORED[0]) not in found.values:
        raise EditError(f"protocol {chosen!r} needs generated answers; predict with `generate=True`")
    return chosen


def _reported(protocol: str) -> list[Key]:
    """What is reported beside the edit score; the probability of portability is undefined, as it has no rival."""
    other = "accuracy" if protocol == "probability" else protocol
    return [*((protocol, name) for name in SCORED), (other, "portability"), *(("text", name) for name in TEXT_SCORES)]


def _resampled(found: EditMeans, n: int, seed: int) -> Intervals:
    """The 95 % interval of every score, in percent; edit scores with them."""
    keys = list(found.values)
    places = {p: [keys.index((p, name)) for name in SCORED] for p in PROTOCOLS if (p, SCORED[0]) in keys}

    def statistic(drawn: np.ndarray) -> np.ndarray:
        return np.column_stack([drawn, *(_harmonic(drawn[:, columns]) for columns in places.values())])

    values = 100 * np.stack([found.values[key] for key in keys], axis=1)
    intervals = interval(bootstrap(values, statistic, n, seed))
    return dict(zip([*keys, *((protocol, "edit_score") for protocol in places)], intervals, strict=True))


def _protocol_scores(found: EditMeans, protocol: str, drawn: Intervals) -> dict[str, Any]:
    names = SCORED if protocol == "probability" else (*SCORED, "portability")
    values = _values(found, [(protocol, name) for name in names], drawn)
    total = harmonic_mean([values[name] for name in SCORED])
    ci95 = None if total is None else drawn[protocol, "edit_score"]
    return {"edit_score": total, "edit_score_ci95": ci95, **values}


def _values(found: EditMeans, keys: Iterable[Key], drawn: Intervals) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for protocol, name in keys:
        values[name] = _percent(found, protocol, name)
        values[f"{name}_ci95"] = drawn.get((protocol, name))
    return values


def _percent(found: EditMeans, protocol: str, name: str) -> float | None:
    """A score's mean over the edits that have it, times 100."""
    values = found.values.get((protocol, name))
    known = np.array([]) if values is None else values[~np.isnan(values)]
    return 100 * float(known.mean()) if known.size else None


def _count(found: EditMeans, protocol: str, name: str) -> int:
    """Edits over which a score is averaged."""
    values = found.values.get((protocol, name))
    return 0 if values is None else int((~np.isnan(values)).sum())


def _aspects(found: EditMeans, drawn: Intervals) -> dict[str, dict[str, Any]]:
    """Portability by aspect: by accuracy, and by exact match and containment where answers were generated."""
    names = [name for protocol, name in found.values if protocol == "accuracy" and "/" in name]
    return {
        name.partition("/")[2]: {
            "portability": _percent(found, "accuracy", name),
            "portability_ci95": drawn["accuracy", name],
            **{other: _percent(found, other, name) for other in GENERATED if (other, name) in found.values},
            "n_edits": _count(found, "accuracy", name),
            "n_probes": found.n_probes[name],
        }
        for name in names
    }


def _with_edit_score(values: np.ndarray) -> np.ndarray:
    """Means of shape `(n, scores)`, the edited ones first, with their harmonic mean put before them."""
    return np.column_stack([_harmonic(values[:, : len(SCORED)]), values])


def _harmonic(values: np.ndarray) -> np.ndarray:
    """Harmonic mean of each row; 0 where a value is 0."""
    with np.errstate(divide="ignore"):
        return values.shape[1] / np.sum(1 / values, axis=1)


def _note(summary: dict[str, Any]) -> str | None:
    kinds = {name: kind for kind, name in NAMES.items()}
    missing = [f"no {kinds[name]} probe: {name} is undefined" for name in SCORED if summary[name] is None]
    return "; ".join(missing) or None
