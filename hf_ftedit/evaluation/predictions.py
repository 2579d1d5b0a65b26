"""A table of predictions, checked, to each edit's own scores: what edits are averaged, resampled and compared by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hf_ftedit.data import is_blank, read_rows
from hf_ftedit.errors import EditError

KINDS = ("rewrite", "paraphrase", "neighborhood", "portability")
NAMES = dict(zip(KINDS, ("efficacy", "generalization", "locality", "portability"), strict=True))
TEXT_SCORES = ("fluency", "consistency")
GENERATED = ("exact_match", "containment")
COLUMNS = ("edit_id", "kind", "probe", "role", "logprob", "match", "token_accuracy")
OPTIONAL_COLUMNS = ("aspect", *GENERATED, *TEXT_SCORES)
# Of a saved table; what was not measured is null.
TYPES = {
    **dict.fromkeys(("edit_id", "kind", "aspect", "probe", "role", "target"), "string"),
    **{"logprob": "float64", "match": "bool", "token_accuracy": "float64"},
    **{"generated": "string", "exact_match": "bool", "containment": "bool"},
    **{"text": "string", "fluency": "float64", "consistency": "float64"},
}

Predictions: TypeAlias = "Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | str | os.PathLike[str]"


class EditMeans(NamedTuple):
    """
    Each edit's own scores, from 0 to 1: what edits are averaged, resampled and compared by.

    Args:
        edit_ids (`list[str]`):
            The edits, sorted.
        values (`dict[tuple[str, str], np.ndarray]`):
            By protocol and score: mean over the edit's probes, shape `(edits,)`, NaN where it has none. The scores are
            efficacy, generalization, locality, portability, `portability/<aspect>`, and, under the protocol `"text"`,
            fluency (in bits) and consistency.
        n_probes (`dict[str, int]`):
            Probes by kind (of `generation`: texts), and of portability by `portability/<aspect>`.
        protocol (`str`):
            The one that fits the data: probability where every probe has both targets, else accuracy.
    """

    edit_ids: list[str]
    values: dict[tuple[str, str], np.ndarray]
    n_probes: dict[str, int]
    protocol: str


def edit_means(predictions: Predictions) -> EditMeans:
    """
    Each edit's own scores, see [`EditMeans`].

    Raises:
        [`~hf_ftedit.EditError`]: as [`score`].
    """
    columns = _columns(predictions)
    _reject_unscorable(columns)
    edit_ids, edit = codes(columns["edit_id"])
    order = np.argsort(np.array(edit_ids))
    edit = np.argsort(order)[edit]
    kind = np.array([KINDS.index(name) if name in KINDS else -1 for name in columns["kind"]], dtype=int)
    values = _text_scores(columns, edit, len(edit_ids))
    owner, edit, kind, aspect = _probes(columns, edit, kind)
    successes = _successes(columns, owner, len(edit))
    _reject_unexpected(columns, owner, successes["accuracy"])
    n_probes = {name: int((kind == index).sum()) for index, name in enumerate(KINDS)}
    n_probes["generation"] = int((columns["kind"] == "generation").sum())
    for protocol, success in successes.items():
        for index, name in enumerate(KINDS):
            values[protocol, NAMES[name]] = _edit_mean(edit, success, kind == index, len(edit_ids))
        for name in sorted(set(aspect[kind == 3]) - {""}):
            values[protocol, f"portability/{name}"] = _edit_mean(edit, success, aspect == name, len(edit_ids))
            n_probes[f"portability/{name}"] = int((aspect == name).sum())
    compared = successes["probability"][(kind >= 0) & (kind < 3)]
    fits = "probability" if compared.size and not np.isnan(compared).any() else "accuracy"
    return EditMeans([edit_ids[index] for index in order], values, n_probes, fits)


def _columns(predictions: Predictions) -> dict[str, np.ndarray]:
    """The columns that scoring reads, each as an array; optional ones where they are there."""
    table: Any = predictions
    if isinstance(table, (str, os.PathLike)):
        table = [row for _, row in read_rows(table)]
    if not hasattr(table, "keys") and not hasattr(table, "column_names"):
        table = _transposed(list(table))
    given = list(getattr(table, "column_names", None) or table.keys())
    if "role" not in given and "target" in given and {*table["target"]} <= {"new", "true", "", None}:
        # Tables of 0.1.0 call it `target`; what is scored is their `answer`, which scoring does not read.
        table = {name: table["target" if name == "role" else name] for name in [*given, "role"]}
        given = list(table)
    if missing := [name for name in COLUMNS if name not in given]:
        raise EditError(f"predictions lack the columns {', '.join(missing)}; give those that `predict` returns")
    columns = {name: _array(name, table[name]) for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in given}
    if not len(columns["edit_id"]):
        raise EditError("there are no predictions to score")
    return columns


def _transposed(rows: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns: required ones that every row has, optional ones that any row has."""
    lacking = {name for row in rows for name in (*COLUMNS, "target") if name not in row}
    given = {*COLUMNS, *(name for row in rows for name in row)} - lacking
    return {name: [row.get(name) for row in rows] for name in given}


def _array(name: str, values: Iterable[Any]) -> np.ndarray:
    """A column: texts as objects (an array of fixed width would be as wide as the longest), others as numbers."""
    if name in ("edit_id", "kind", "probe", "role", "aspect"):
        return np.array(["" if is_blank(value) else str(value) for value in values], dtype=object)
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    except (TypeError, ValueError) as error:
        raise EditError(f"the column {name} holds what is no number ({error}); give numbers, or null") from error


def codes(values: Sequence[str] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Distinct values in order of appearance, and the index of each value among them."""
    index: dict[str, int] = {}
    found = np.fromiter((index.setdefault(value, len(index)) for value in values), dtype=int, count=len(values))
    return list(index), found


def _reject_unscorable(columns: dict[str, np.ndarray]) -> None:
    asked = columns["kind"] != "generation"
    for name in ("logprob", "token_accuracy"):
        _reject(columns, asked & np.isnan(columns[name]), f"{name} is not a number; evaluate again, in float32")
    unknown = asked & ~np.isin(columns["role"], ["new", "true"])
    _reject(columns, unknown, "role is neither 'new' nor 'true'; give which target was scored")
    _reject(columns, asked & ~np.isin(columns["kind"], KINDS), f"its kind is none of {', '.join(KINDS)}, generation")


def _reject(columns: dict[str, np.ndarray], bad: np.ndarray, reason: str) -> None:
    """Raise [`~hf_ftedit.EditError`] about the first row that is `bad`."""
    if bad.any():
        edit_id, kind, probe = (str(columns[name][bad.argmax()]) for name in ("edit_id", "kind", "probe"))
        raise EditError(f"edit {edit_id!r}, {kind} probe {probe!r}: {reason}")


def _probes(
    columns: dict[str, np.ndarray], edit: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The probe of each row (-1 for generated text), and each probe's edit, kind and aspect."""
    aspects = columns.get("aspect", np.full(len(edit), "", dtype=object))
    _, probe = codes(columns["probe"])
    names, aspect = codes(np.where(kind == 3, aspects, ""))
    rows = np.flatnonzero(kind >= 0)
    keys, found = np.unique(np.stack([edit, kind, aspect, probe])[:, rows], axis=1, return_inverse=True)
    owner = np.full(len(edit), -1)
    owner[rows] = found
    return owner, keys[0], keys[1], np.array(names, dtype=object)[keys[2]]


def _successes(columns: dict[str, np.ndarray], owner: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Success of each probe by protocol, shape `(probes,)`, NaN where it is undefined."""
    expected = (columns["role"] == "true") == (columns["kind"] == "neighborhood")
    ours, others = (owner >= 0) & expected, (owner >= 0) & ~expected
    logprob = columns["logprob"]
    _reject_contradictions(columns, owner, [("logprob", ours), ("logprob", others), ("token_accuracy", ours)])
    likely, rival = _best(owner, logprob, ours, size), _best(owner, logprob, others, size)
    found = {
        "accuracy": _best(owner, columns["token_accuracy"], ours, size),
        "probability": np.where(np.isnan(likely) | np.isnan(rival), np.nan, likely > rival),
    }
    if all(name in columns and not np.isnan(columns[name][ours]).all() for name in GENERATED):
        found |= {name: _best(owner, columns[name], ours, size) for name in GENERATED}
    return found


def _best(owner: np.ndarray, values: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """The largest value of each probe among `rows`; NaN where it has none."""
    out = np.full(size, np.nan)
    np.fmax.at(out, owner[rows], values[rows])
    return out


def _reject_contradictions(
    columns: dict[str, np.ndarray], owner: np.ndarray, parts: list[tuple[str, np.ndarray]]
) -> None:
    """A probe that stands twice counts once, so both rows must say the same; only portability has several answers."""
    single = columns["kind"] != "portability"
    for name, part in parts:
        rows = np.flatnonzero(part & single)
        _, first, inverse = np.unique(owner[rows], return_index=True, return_inverse=True)
        bad = np.zeros(len(owner), dtype=bool)
        bad[rows] = columns[name][rows] != columns[name][rows][first[inverse]]
        _reject(columns, bad, "it has two different predictions; score one run at a time")


def _reject_unexpected(columns: dict[str, np.ndarray], owner: np.ndarray, accuracy: np.ndarray) -> None:
    lacking = owner >= 0
    lacking[lacking] = np.isnan(accuracy[owner[lacking]])
    _reject(columns, lacking, "there is no prediction of its expected target; predict both targets of a probe")


def _edit_mean(edit: np.ndarray, success: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Mean of `success` over each edit's probes among `rows`, NaN where it has none that is defined."""
    rows = rows & ~np.isnan(success)
    with np.errstate(invalid="ignore"):
        return np.bincount(edit[rows], success[rows], size) / np.bincount(edit[rows], minlength=size)


def _text_scores(columns: dict[str, np.ndarray], edit: np.ndarray, size: int) -> dict[tuple[str, str], np.ndarray]:
    generated = columns["kind"] == "generation"
    found = {name: columns[name] for name in TEXT_SCORES if name in columns}
    return {("text", name): _edit_mean(edit, values, generated, size) for name, values in found.items()}
