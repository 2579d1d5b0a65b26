"""Predictions to per-edit means, success rates, the edit score with its interval, and the significance of changes."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from hf_ftedit.data import EditRecord, is_blank, read_rows
from hf_ftedit.errors import EditError, first_line
from hf_ftedit.evaluation.statistics import bootstrap, interval, means, permutation_test
from hf_ftedit.files import moved_in, write_json
from hf_ftedit.options import EditOptions, check_value

# Kinds of probes, in the order of the paper's tables, and the score of each.
KINDS = ("rewrite", "paraphrase", "neighborhood", "near_name", "portability")
NAMES = dict(zip(KINDS, ("efficacy", "generalization", "locality", "near_names", "portability"), strict=True))
SCORED = ("efficacy", "generalization", "locality")
ANSWER_SCORES = ("said_exactly", "near_names")  # of own answers alone, whatever the protocol
TEXT_SCORES = ("fluency", "consistency")
# Of erased facts, the lower the better, with their columns.
ERASURE_SCORES = {"old_answer_said": "old_said", "old_answer_probability": "old_probability"}
# What a score that not every run has needs: fields of the edits, and settings one of which must be given.
PROBED_BY = {
    **{name: (f"{kind}_prompts",) for kind, name in NAMES.items() if kind != "rewrite"},
    "edit_score": ("paraphrase_prompts", "neighborhood_prompts"),
    "consistency": ("reference_texts",),
    **dict.fromkeys(ERASURE_SCORES, ("erase",)),
}
_WHOLE = ("chat_template", "end_of_answer")
MEASURED_WITH = {
    "said_exactly": _WHOLE,
    **dict.fromkeys(("near_names", "old_answer_said"), (*_WHOLE, "predict_with_generate")),
    **dict.fromkeys(TEXT_SCORES, ("measure_fluency",)),
    **{"perplexity": ("perplexity_texts",), "known_facts": ("known_facts",)},
}
GENERATED = ("exact_match", "containment")
PROTOCOLS = ("accuracy", "probability", *GENERATED)
COLUMNS = ("edit_id", "kind", "probe", "role", "logprob", "match", "token_accuracy")
OPTIONAL_COLUMNS = ("aspect", "target", "stopped", *GENERATED, *ERASURE_SCORES.values(), *TEXT_SCORES)
# Of a saved table; what was not measured is null.
TYPES = {
    **dict.fromkeys(("edit_id", "kind", "aspect", "probe", "role", "target"), "string"),
    **{"logprob": "float64", "match": "bool", "token_accuracy": "float64"},
    **{"generated": "string", "stopped": "bool", "own_logprob": "float64", **dict.fromkeys(GENERATED, "bool")},
    **{"old_probability": "float64", "old_said": "bool"},
    **{"text": "string", "fluency": "float64", "consistency": "float64"},
}
RESULTS_FILE = "eval_results.json"
_PROBE = ["edit_id", "kind", "aspect", "probe"]  # that make up one probe

Predictions: TypeAlias = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
Key: TypeAlias = tuple[str, str]


class Summary(NamedTuple):
    """A score in percent, over the edits that have it."""

    mean: float | None = None
    ci95: list[float] | None = None
    n_edits: int = 0


class EditMeans(NamedTuple):
    """
    Each edit's own scores, from 0 to 1, by which edits are averaged, resampled and compared.

    `values` are means over the edit's probes by protocol and score, shape `(edits,)`, NaN where it has none. Scores
    are efficacy, generalization, locality, portability, `portability/<aspect>`, and, under the protocol `"text"`,
    those of own answers alone (said exactly, near names), of erased facts, fluency (in bits) and consistency.
    """

    edit_ids: list[str]  # sorted
    values: dict[Key, np.ndarray]
    n_probes: dict[str, int]  # by kind (of `generation`: texts), and of portability by `portability/<aspect>`
    # That fits the data: containment in whole answers; else probability where every probe has both targets; accuracy.
    protocol: str
    whole_answers: bool = False  # of a model that ends them by itself
    without_rival: int = 0  # probes whose right answer and new target are one text: none can be the likelier one


def edit_means(predictions: Predictions) -> EditMeans:
    """Average predictions over each edit's probes, see [`EditMeans`]; errors are those of [`score`]."""
    table = _table(predictions)
    is_text = table["kind"] == "generation"
    texts, probes = table[is_text], _probes(table[~is_text])
    values = {("text", name): _by_edit(texts, name) for name in TEXT_SCORES if name in table}
    n_probes = {kind: int((probes["kind"] == kind).sum()) for kind in KINDS} | {"generation": len(texts)}
    hops = probes[probes["kind"] == "portability"]
    for name, column in ERASURE_SCORES.items():
        if column in table and table[column].notna().any():
            values["text", name] = _by_edit(table, column)
            n_probes["erased"] = int(table["old_probability"].notna().sum())
    for protocol in (name for name in PROTOCOLS if name in probes):
        for kind in (kind for kind in KINDS if kind != "near_name"):
            values[protocol, NAMES[kind]] = _by_edit(probes[probes["kind"] == kind], protocol)
        for aspect in sorted({*hops["aspect"]} - {""}):
            values[protocol, f"portability/{aspect}"] = _by_edit(hops[hops["aspect"] == aspect], protocol)
            n_probes[f"portability/{aspect}"] = int((hops["aspect"] == aspect).sum())
    is_whole = "stopped" in table and bool(table["stopped"].notna().any())
    if "containment" in probes:
        values["text", "near_names"] = _by_edit(probes[probes["kind"] == "near_name"], "containment")
        if is_whole and "exact_match" in probes:
            values["text", "said_exactly"] = values["exact_match", "efficacy"]
    is_compared = ~probes["kind"].isin(["portability", "near_name"]) & ~probes["same_target"]
    compared = probes.loc[is_compared, "probability"]
    fits = "probability" if len(compared) and compared.notna().all() else "accuracy"
    fits = "containment" if is_whole and "containment" in probes else fits
    names = list(table["edit_id"].cat.categories)
    return EditMeans(names, values, n_probes, fits, is_whole, int(probes["same_target"].sum()))


def _table(predictions: Predictions) -> pd.DataFrame:
    """The columns that scoring reads, checked: texts as categories, everything else as numbers."""
    table = _read(predictions)
    if not len(table):
        raise EditError("there are no predictions to score")
    if missing := [name for name in COLUMNS if name not in table]:
        raise EditError(f"predictions lack the columns {', '.join(missing)}; give those that `predict` returns")
    # Older predictions did not keep their targets.
    table = table.assign(**{name: "" for name in ("aspect", "target") if name not in table})
    for name, values in table.items():
        if TYPES[str(name)] == "string":
            table[name] = ["" if is_blank(value) else str(value) for value in values]
            continue
        try:
            table[name] = np.array([np.nan if is_blank(value) else value for value in values], dtype=float)
        except (TypeError, ValueError) as error:
            raise EditError(f"the column {name} holds what is no number ({error}); give numbers, or null") from error
    is_probe = table["kind"] != "generation"
    for name in ("logprob", "token_accuracy"):
        _reject(table, is_probe & table[name].isna(), f"{name} is not a number; evaluate again, in float32")
    _reject(table, table["logprob"] > 1e-6, "logprob is above 0; give log-probabilities, not losses")
    for name in ("token_accuracy", "match", *GENERATED):
        if name in table:
            _reject(
                table, (table[name] < 0) | (table[name] > 1), f"{name} is not from 0 to 1; give shares, not percent"
            )
    unknown = is_probe & ~table["role"].isin(["new", "true"])
    _reject(table, unknown, "role is neither 'new' nor 'true'; give which target was scored")
    _reject(table, is_probe & ~table["kind"].isin(KINDS), f"its kind is none of {', '.join(KINDS)}, generation")
    table["aspect"] = table["aspect"].where(table["kind"] == "portability", "")
    for name in _PROBE:
        # Edits are sorted; the rest stands as it appears, so that means are summed up in the order of the table.
        values = sorted({*table[name]}) if name == "edit_id" else pd.unique(table[name])
        table[name] = pd.Categorical(table[name], values)
    return table


def _read(predictions: Any) -> pd.DataFrame:
    """The columns that scoring reads, as they were written."""
    rows = predictions
    if isinstance(rows, (str, os.PathLike)):
        rows = [row for _, row in read_rows(rows)]
    if hasattr(rows, "to_pandas"):  # of `datasets` or PyArrow
        rows = rows.to_pandas()
    try:
        # As objects: pandas would read integers with a gap as floats, and so give edits other names.
        table = pd.DataFrame(rows, dtype=object).reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise EditError(f"predictions are no table ({first_line(error)}); give rows, columns or a file") from error
    if "role" not in table and "target" in table and {*table["target"].dropna()} <= {"new", "true", ""}:
        # Tables of 0.1.0 call it `target`, and the target their `answer`.
        table = table.rename(columns={"target": "role", "answer": "target"})
    return table[[name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in table]]


def _reject(table: pd.DataFrame, bad: pd.Series, reason: str) -> None:
    """Raise [`~hf_ftedit.EditError`] about the first row that is `bad`."""
    if bad.any():
        edit_id, kind, probe = table.loc[bad.idxmax(), ["edit_id", "kind", "probe"]]
        raise EditError(f"edit {edit_id!r}, {kind} probe {probe!r}: {reason}")


def _probes(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each probe: its edit, kind and aspect, and its success by protocol, NaN where that is undefined."""
    probe = rows.groupby(_PROBE, observed=True).ngroup()
    expected = (rows["role"] == "true") == (rows["kind"] == "neighborhood")
    # A probe that stands twice counts once, so both rows must agree, but for the several answers of portability
    # probes, and of neighborhood probes, whose targets tell them apart.
    is_single = rows["kind"] != "portability"
    answer = rows["target"].where(expected & (rows["kind"] == "neighborhood"), "")
    for name, part in (("logprob", expected), ("logprob", ~expected), ("token_accuracy", expected)):
        part = part & is_single
        values = rows.loc[part, name]
        differs = values != values.groupby([probe[part], answer[part]]).transform("first")
        _reject(rows, differs, "it has two different predictions; score one run at a time")
    lacking = ~probe.isin(probe[expected])
    _reject(rows, lacking, "there is no prediction of its expected target; predict both targets of a probe")
    # Of several answers the best one counts.
    best = rows[expected].groupby(probe[expected]).max(numeric_only=True)
    rival = rows[~expected].groupby(probe[~expected])["logprob"].max().reindex(best.index)
    probes = rows[_PROBE].loc[~probe.duplicated()].set_axis(probe[~probe.duplicated()]).sort_index()
    probes["accuracy"] = best["token_accuracy"]
    first, second = (rows.loc[part, "target"].groupby(probe[part]).first() for part in (expected, ~expected))
    is_same = (first.reindex(second.index) == second) & (second != "")
    probes["same_target"] = is_same.reindex(best.index, fill_value=False)
    has_rival = rival.notna() & ~probes["same_target"]
    probes["probability"] = (best["logprob"] > rival).astype(float).where(has_rival)
    for name in GENERATED:
        if name in rows and best[name].notna().any():
            probes[name] = best[name]
    return probes


def _by_edit(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Mean of a column over each edit's rows, shape `(edits,)`; NaN where it has none that is defined."""
    rows = rows[rows[name].notna()]
    edits, size = rows["edit_id"].cat.codes, len(rows["edit_id"].cat.categories)
    with np.errstate(invalid="ignore"):
        # Not `groupby(...).mean()`: it compensates rounding, and would change scores that are published by a last bit.
        return np.bincount(edits, rows[name], size) / np.bincount(edits, minlength=size)


def score(
    predictions: Predictions | EditMeans, protocol: str = "auto", *, n_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """
    Score predictions: efficacy, generalization, locality, and their harmonic mean, the edit score.

    Values are averages over the probes of a record, then over records (Meng et al. 2022, Section 3.3). *probability*:
    a probe succeeds where its expected target is likelier than the other one, ties not counting; *accuracy*: share of
    the expected target's tokens that are the most likely ones (zsRE). The expected target is `"true"` for
    neighborhood probes and `"new"` for all others; of several answers to one of them, or to a portability probe, the
    best counts. Where the model's own answers were generated, *exact_match* and *containment* are scored in the same
    way, and of a model that ends its answers *containment* is the one that counts: the new target is said, and what
    stays is kept, see [`~hf_ftedit.evaluation.own_answers.is_kept`].

    Args:
        predictions (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]): One row per
            (probe, target), as columns, as rows, or as a JSONL or Parquet file: `edit_id`, `kind`, `probe`, `role`
            (`"new"` or `"true"`), `logprob` (mean per token), `match`, `token_accuracy`; and, where they were
            measured, `aspect` (of portability), `stopped` (of answers that end), `exact_match`, `containment`,
            `fluency`, `consistency`, `target` (two that are the same leave no probability). Other columns are not
            read. Tables of 0.1.0, which call the role `target`, are read too.
        protocol (`str`, *optional*, defaults to `"auto"`): `"probability"`, `"accuracy"`, `"exact_match"`,
            `"containment"`, or `"auto"`: containment in answers that end by themselves; else probability where every
            rewrite, paraphrase and neighborhood probe has both targets, not counting those whose targets are the same;
            else accuracy.
        n_resamples (`int`, *optional*, defaults to `1000`): Bootstrap resamples of the records.
        seed (`int`, *optional*, defaults to `0`): Seed of the bootstrap.

    Returns:
        `dict`: `protocol`; `edit_score`, `efficacy`, `generalization`, `locality`, `portability` from 0 to 100 or
        `None` where undefined; `said_exactly` (whole answers to the edits that are nothing but the target) and
        `near_names` (the new target is not said) where there are own answers; `old_answer_said` and
        `old_answer_probability` where facts are erased; `*_ci95` as `[low, high]`;
        `edit_score_note` where the edit score is undefined; `n_without_rival`, where there are some, probes whose two
        targets are the same; `n_edits`; `n_edits_scored` by score; `n_probes` by kind; `portability_aspects`;
        `fluency` (entropy in bits, times 100) and `consistency` of generated texts; `whole_answers`, true for those
        that end by themselves; and the values of each protocol under its name.

    Raises:
        [`~hf_ftedit.EditError`]: predictions are no numbers, contradict or lack; the protocol cannot be computed.
    """
    per_edit = _per_edit(predictions, n_resamples, seed)
    chosen = _chosen(per_edit, protocol)
    summaries = _summaries(per_edit, n_resamples, seed)
    names = ("edit_score", *SCORED, "portability")
    own = {each: names[:-1] if each == "probability" else names for each in _protocols(per_edit)}
    scores = {each: _named(summaries, [(each, name) for name in names]) for each, names in own.items()}
    return {
        "protocol": chosen,
        **scores[chosen],
        **_named(summaries, _reported(chosen, per_edit)[len(SCORED) :]),
        "edit_score_note": _note(scores[chosen], per_edit.n_probes),
        "n_edits": len(per_edit.edit_ids),
        **({"n_without_rival": per_edit.without_rival} if per_edit.without_rival else {}),
        "n_edits_scored": {key[1]: summaries.get(key, Summary()).n_edits for key in _reported(chosen, per_edit)},
        "n_probes": {kind: n for kind, n in per_edit.n_probes.items() if "/" not in kind},
        "portability_aspects": _aspects(per_edit, summaries),
        "whole_answers": per_edit.whole_answers,
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
    Differences between two measurements of the same edits, with intervals and p-values.

    Args:
        before (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]): Predictions before,
            as [`score`] takes them.
        after (`Mapping[str, Sequence]`, `Sequence[Mapping]`, `str`, `PathLike` or [`EditMeans`]): Predictions after.
        protocol (`str`, *optional*, defaults to `"auto"`): As in [`score`], for both; `"auto"` is that of `after`.
        n_resamples (`int`, *optional*, defaults to `2000`): Bootstrap resamples, and permutations of the test.
        seed (`int`, *optional*, defaults to `0`): Their seed.

    Returns:
        `dict`: by score (`edit_score`, `efficacy`, ...) `difference` (after minus before, in points), its 95 %
        bootstrap interval `difference_ci95`, `p_value` (two-sided paired permutation test over edits), and `n_edits`,
        the edits that have it in both. Scores that no edit has in both are left out.

    Raises:
        [`~hf_ftedit.EditError`]: the two are not about the same edits.
    """
    one, two = _per_edit(before, n_resamples, seed), _per_edit(after, n_resamples, seed)
    if one.edit_ids != two.edit_ids:
        raise EditError("before and after are not about the same edits; predict both with one list of edits")
    chosen = _chosen(two, protocol)
    keys = _reported(chosen, two)
    unknown = np.full(len(two.edit_ids), np.nan)
    tables = [[item.values.get(key, unknown) for key in keys] for item in (one, two)]
    values = 100 * np.stack(tables).transpose(0, 2, 1)
    # Only what both have can be compared; and the difference is resampled pairwise, edit by edit, as two measurements
    # of the same edits rise and fall together: independent intervals would be far too wide.
    values[:, np.isnan(values).any(axis=0)] = np.nan
    first, second = values
    difference = _with_edit_score(means(second)[None]) - _with_edit_score(means(first)[None])
    drawn = [bootstrap(item, _with_edit_score, n_resamples, seed) for item in values]
    intervals = interval(drawn[1] - drawn[0])
    p_values = permutation_test(first, second, _with_edit_score, n_resamples, seed)
    counts = (~np.isnan(first)).sum(axis=0)
    counts = [int(counts[: len(SCORED)].min()), *map(int, counts)]
    names = ["edit_score", *(name for _, name in keys)]
    columns = zip(names, difference[0].tolist(), intervals, p_values.tolist(), counts, strict=True)
    return {
        name: {"difference": change, "difference_ci95": ci95, "p_value": p_value, "n_edits": count}
        for name, change, ci95, p_value, count in columns
        if not np.isnan(change)
    }


def _per_edit(predictions: Predictions | EditMeans, n_resamples: int, seed: int) -> EditMeans:
    check_value("n_resamples", n_resamples, int)
    check_value("seed", seed, int)
    return predictions if isinstance(predictions, EditMeans) else edit_means(predictions)


def _protocols(per_edit: EditMeans) -> list[str]:
    """The protocols that can be computed."""
    return [protocol for protocol in PROTOCOLS if (protocol, SCORED[0]) in per_edit.values]


def _chosen(per_edit: EditMeans, protocol: str) -> str:
    chosen = per_edit.protocol if protocol == "auto" else protocol
    if chosen not in PROTOCOLS:
        raise EditError(f"protocol is {protocol!r}; choose one of auto, {', '.join(PROTOCOLS)}")
    if chosen not in _protocols(per_edit):
        raise EditError(f"protocol {chosen!r} needs generated answers; predict with `generate=True`")
    return chosen


def _reported(protocol: str, per_edit: EditMeans) -> list[Key]:
    """The scores beside the edit score; the probability of portability is undefined, as it has no rival."""
    other = "accuracy" if protocol == "probability" else protocol
    erased = (name for name in ERASURE_SCORES if ("text", name) in per_edit.values)
    beside = (*ANSWER_SCORES, *erased, *TEXT_SCORES)
    return [*((protocol, name) for name in SCORED), (other, "portability"), *(("text", name) for name in beside)]


def _summaries(per_edit: EditMeans, n: int, seed: int) -> dict[Key, Summary]:
    """Of every score and edit score its mean and 95 % interval, all intervals from the same resamples."""
    keys = list(per_edit.values)
    places = {p: [keys.index((p, name)) for name in SCORED] for p in _protocols(per_edit)}

    def statistic(resampled: np.ndarray) -> np.ndarray:
        return np.column_stack([resampled, *(harmonic_mean(resampled[:, columns]) for columns in places.values())])

    # In one go: drawing a thousand resamples of ten thousand edits costs more than all the means of them.
    values = 100 * np.stack([per_edit.values[key] for key in keys], axis=1)
    intervals = interval(bootstrap(values, statistic, n, seed))
    summaries = {}
    for key, ci95 in zip(keys, intervals, strict=False):
        defined = per_edit.values[key][~np.isnan(per_edit.values[key])]
        mean = 100 * float(defined.mean()) if defined.size else None
        summaries[key] = Summary(mean, ci95, len(defined))
    for protocol, ci95 in zip(places, intervals[len(keys) :], strict=True):
        total = float(harmonic_mean([summaries[protocol, name].mean for name in SCORED]))
        summaries[protocol, "edit_score"] = Summary() if np.isnan(total) else Summary(total, ci95)
    return summaries


def _named(summaries: Mapping[Key, Summary], keys: Iterable[Key]) -> dict[str, Any]:
    pairs = ((key[1], summaries.get(key, Summary())) for key in keys)
    return {label: value for name, of in pairs for label, value in ((name, of.mean), (f"{name}_ci95", of.ci95))}


def _aspects(per_edit: EditMeans, summaries: Mapping[Key, Summary]) -> dict[str, dict[str, Any]]:
    """Portability by aspect: by accuracy, and by exact match and containment where answers were generated."""
    aspects: dict[str, dict[str, Any]] = {}
    for (protocol, name), summary in summaries.items():
        if protocol == "accuracy" and "/" in name:
            answers = {other: summaries[other, name].mean for other in GENERATED if (other, name) in summaries}
            numbers = {"n_edits": summary.n_edits, "n_probes": per_edit.n_probes[name]}
            shares = {"portability": summary.mean, "portability_ci95": summary.ci95}
            aspects[name.partition("/")[2]] = shares | answers | numbers
    return aspects


def _with_edit_score(values: np.ndarray) -> np.ndarray:
    """Means of shape `(n, scores)`, the edited ones first, with their harmonic mean put before them."""
    return np.column_stack([harmonic_mean(values[:, : len(SCORED)]), values])


def harmonic_mean(values: Any) -> Any:
    """Harmonic mean along the last axis; 0 where a value is 0, NaN where one is `None` or NaN."""
    values = np.asarray(values, dtype=float)
    # Of zero the reciprocal is infinite, and the mean 0, as the limit is: an edit set with no locality scores 0.
    with np.errstate(divide="ignore"):
        return values.shape[-1] / np.sum(1 / values, axis=-1)


def _note(summary: Mapping[str, Any], n_probes: Mapping[str, int]) -> str | None:
    undefined = [(kind, name) for kind, name in NAMES.items() if name in SCORED and summary[name] is None]
    probe = {kind: "probe with two targets" if n_probes[kind] else "probe" for kind, _ in undefined}
    return "; ".join(f"no {kind} {probe[kind]}: {name} is undefined" for kind, name in undefined) or None


def unmeasured(name: str, records: Iterable[EditRecord], options: EditOptions) -> str | None:
    """Say what `records` or `options` lack for the score `name` to be measured, and the remedy; None if nothing."""
    for field in PROBED_BY.get(name, ()):
        if not any(getattr(record, field) for record in records):
            return f"is undefined: no edit has {field}; add some"
    settings = MEASURED_WITH.get(name, ())
    if settings and not any(getattr(options, setting) for setting in settings):
        return f"is not measured without {' or '.join(settings)}; give that"
    return None


def save_results_folder(
    folder: str | Path, results: dict[str, Any], predictions: dict[str, dict[str, list[Any]]]
) -> None:
    """Write scores as `eval_results.json`, and the columns of each measurement's predictions as one Parquet file."""
    from datasets import Dataset, Features, Value

    features = Features({name: Value(kind) for name, kind in TYPES.items()})
    with moved_in(Path(folder)) as new:
        for when, columns in predictions.items():
            whole = {name: columns.get(name, [None] * len(columns["edit_id"])) for name in TYPES}
            Dataset.from_dict(whole, features).to_parquet(str(new / f"predictions-{when}.parquet"))
        write_json(new / RESULTS_FILE, results)
