"""Per-probe predictions to success rates, accuracies, the edit score and its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hf_ftedit.records import EditError

KINDS = ("rewrite", "paraphrase", "neighborhood", "portability")
NAMES = dict(zip(KINDS, ("efficacy", "generalization", "locality", "portability"), strict=True))
SCORED = ("efficacy", "generalization", "locality")
COLUMNS = ("edit_id", "kind", "probe", "target", "logprob", "match", "token_accuracy")


class _Probes(NamedTuple):
    """Arrays of shape `(probes,)`: index of the record, of the kind, and success by protocol (NaN: undefined)."""

    record: np.ndarray
    kind: np.ndarray
    accuracy: np.ndarray
    probability: np.ndarray


def score(
    predictions: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    protocol: str = "auto",
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Score predictions: efficacy, generalization, locality, and their harmonic mean, the edit score.

    Values are averages over the probes of a record, then over records (Meng et al. 2022, Section 3.3). *probability*:
    a probe succeeds where its expected target is likelier than the other one, ties not counting; *accuracy*: share of
    the expected target's tokens that are the most likely ones (zsRE). The expected target is `"true"` for
    neighborhood probes and `"new"` for all others.

    Args:
        predictions (`Mapping[str, Sequence]` or `Sequence[Mapping]`):
            One row per (probe, target), as columns or as rows: `edit_id`, `kind`, `probe`, `target` (`"new"` or
            `"true"`), `logprob` (mean per token), `match`, `token_accuracy`. Other columns are not read.
        protocol (`str`, *optional*, defaults to `"auto"`):
            `"probability"`, `"accuracy"`, or `"auto"`: probability where every rewrite, paraphrase and neighborhood
            probe has both targets.
        n_resamples (`int`, *optional*, defaults to `1000`):
            Bootstrap resamples of the records.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Returns:
        `dict`: `protocol`; `edit_score`, `efficacy`, `generalization`, `locality`, `portability` from 0 to 100 or
        `None` where undefined; `*_ci95` as `[low, high]`; `edit_score_note` where the edit score is undefined;
        `n_edits`; `n_probes` by kind; and the values of both protocols under `accuracy` and `probability`.

    Raises:
        [`~hf_ftedit.records.EditError`]: a value is not a number, or a probe has two different predictions.
    """
    probes, n_records = _probes(_columns(predictions))
    weights = np.random.default_rng(seed).multinomial(n_records, np.full(n_records, 1 / n_records), n_resamples)
    both = {
        "accuracy": _summary(probes, probes.accuracy, n_records, weights),
        "probability": _summary(probes, probes.probability, n_records, weights),
    }
    chosen = _protocol(probes) if protocol == "auto" else protocol
    portability = {name: both["accuracy"][name] for name in ("portability", "portability_ci95")}
    counts = {kind: int((probes.kind == index).sum()) for index, kind in enumerate(KINDS)}
    return {
        "protocol": chosen,
        **both[chosen],
        **portability,
        "edit_score_note": _note(both[chosen]),
        "n_edits": n_records,
        "n_probes": counts,
        **{name: {key: value for key, value in found.items() if "portab" not in key} for name, found in both.items()},
    }


def harmonic_mean(values: Sequence[float | None]) -> float | None:
    """Harmonic mean: 0 where a value is 0, `None` where one is undefined."""
    if any(value is None for value in values):
        return None
    known = [float(value) for value in values if value is not None]
    return len(known) / sum(1 / value for value in known) if all(known) else 0.0


def _columns(predictions: Any) -> dict[str, np.ndarray]:
    if not hasattr(predictions, "keys") and not hasattr(predictions, "column_names"):
        rows = list(predictions)
        predictions = {name: [row[name] for row in rows] for name in COLUMNS if all(name in row for row in rows)}
    names = getattr(predictions, "column_names", None) or list(predictions.keys())
    if missing := [name for name in COLUMNS if name not in names]:
        raise EditError(f"predictions lack the columns {', '.join(missing)}; give those that `predict` returns")
    columns = {name: np.array(predictions[name]) for name in COLUMNS}
    if not len(columns["edit_id"]):
        raise EditError("there are no predictions to score")
    return columns


def _probes(columns: dict[str, np.ndarray]) -> tuple[_Probes, int]:
    """One entry per probe, with its expected target's values and the other's, if any."""
    for name in ("logprob", "token_accuracy"):
        _reject(columns, np.isnan(columns[name].astype(float)), f"{name} is not a number; evaluate again, in float32")
    records, record = np.unique(columns["edit_id"].astype(str), return_inverse=True)
    kind = np.array([KINDS.index(name) if name in KINDS else -1 for name in columns["kind"]], dtype=int)
    _, probe = np.unique(columns["probe"].astype(str), return_inverse=True)
    keys, owner = np.unique(np.stack([record, kind, probe]), axis=1, return_inverse=True)
    expected = (columns["target"] == "true") == (kind == KINDS.index("neighborhood"))
    logprob, accuracy = columns["logprob"].astype(float), columns["token_accuracy"].astype(float)
    size = keys.shape[1]
    _reject_contradictions(columns, owner * 2 + expected, logprob)
    ours, others = (_spread(owner[rows], logprob[rows], size) for rows in (expected, ~expected))
    right = _spread(owner[expected], accuracy[expected], size)
    likelier = np.where(np.isnan(ours) | np.isnan(others), np.nan, ours > others)
    kept = (keys[1] >= 0) & ~np.isnan(right)
    return _Probes(keys[0][kept], keys[1][kept], right[kept], likelier[kept]), len(records)


def _reject(columns: dict[str, np.ndarray], bad: np.ndarray, reason: str) -> None:
    """Raise [`~hf_ftedit.records.EditError`] about the first row that is `bad`."""
    if bad.any():
        edit_id, kind, probe = (str(columns[name][bad.argmax()]) for name in ("edit_id", "kind", "probe"))
        raise EditError(f"edit {edit_id!r}, {kind} probe {probe!r}: {reason}")


def _reject_contradictions(columns: dict[str, np.ndarray], owner: np.ndarray, logprob: np.ndarray) -> None:
    """A probe that stands twice counts once, so both rows must say the same."""
    _, first, inverse = np.unique(owner, return_index=True, return_inverse=True)
    _reject(columns, logprob != logprob[first[inverse]], "it has two different predictions; score one run at a time")


def _spread(owner: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    out = np.full(size, np.nan)
    out[owner] = values
    return out


def _protocol(probes: _Probes) -> str:
    scored = probes.probability[probes.kind < KINDS.index("portability")]
    return "probability" if scored.size and not np.isnan(scored).any() else "accuracy"


def _summary(probes: _Probes, success: np.ndarray, n_records: int, weights: np.ndarray) -> dict[str, Any]:
    """Each kind's mean with its interval, and the edit score with its."""
    found: dict[str, Any] = {}
    resampled: dict[str, np.ndarray] = {}
    for index, kind in enumerate(KINDS):
        rows = (probes.kind == index) & ~np.isnan(success)
        counts = np.bincount(probes.record[rows], minlength=n_records)
        means = np.bincount(probes.record[rows], success[rows], n_records)[counts > 0] / counts[counts > 0]
        name = NAMES[kind]
        found[name] = 100 * float(means.mean()) if means.size else None
        drawn = weights[:, counts > 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled[name] = 100 * (drawn @ means) / drawn.sum(axis=1)
        found[f"{name}_ci95"] = _interval(resampled[name]) if means.size else None
    score = harmonic_mean([found[name] for name in SCORED])
    with np.errstate(divide="ignore", over="ignore"):
        drawn_scores = 3 / np.sum([1 / resampled[name] for name in SCORED], axis=0)
    interval = _interval(drawn_scores) if score is not None else None
    return {"edit_score": score, "edit_score_ci95": interval, **found}


def _interval(values: np.ndarray) -> list[float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def _note(summary: dict[str, Any]) -> str | None:
    missing = [f"no {kind} probe: {NAMES[kind]} is undefined" for kind in KINDS if NAMES[kind] in SCORED]
    missing = [note for note, name in zip(missing, SCORED, strict=True) if summary[name] is None]
    return "; ".join(missing) or None
