"""Results as text for people: tables, and what they mean."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_ftedit.evaluation.diagnosis import MEASURABLE, diagnose
from hf_ftedit.evaluation.score_format import SCORES, change_text, counts, edits_text, score_text

WIDTH = 110
PROTOCOLS = {
    "probability": "probability",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "containment": "containment",
}


def results_table(results: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """
    Results as text: scores, what changed, and a diagnosis in words.

    Args:
        results (`Mapping`):
            What `eval_results.json` holds: scores by `"before"` and, where there is an edited model, `"after"`, see
            [`~hf_ftedit.score`]; `"change"`, see [`~hf_ftedit.compare`]; `"tasks"`, see
            [`~hf_ftedit.evaluation.lm_eval_harness.task_changes`].
        settings (`Mapping`, *optional*):
            What `edit_config.yaml` holds, for the diagnosis.
    """
    measured = {when: results[when] for when in ("before", "after") if when in results}
    last = list(measured.values())[-1]
    parts = [
        f"{edits_text(last['n_edits'])}, {last['protocol']} protocol, percent (95 % interval)",
        _scores(measured, results.get("change")),
    ]
    if "exact_match" in last:
        title = "By protocol, percent; exact match and containment are of the model's own answers"
        parts += ["", title, _protocols(measured)]
    if any(last.get("portability_aspects") or ()):
        parts += ["", "Portability by aspect, percent", _aspects(measured)]
    if results.get("tasks"):
        parts += ["", "Tasks of lm-evaluation-harness", _tasks(results["tasks"])]
    parts += _earlier(results)
    sentences = diagnose(results, settings)
    if not sentences and last["edit_score_note"]:
        parts += ["", *textwrap.wrap(f"No edit score: {last['edit_score_note']}. {MEASURABLE}", 100)]
    if sentences:
        wrapped = (textwrap.fill(line, 100, initial_indent="- ", subsequent_indent="  ") for line in sentences)
        parts += ["", "Diagnosis", *wrapped]
    return "\n".join(parts)


def checks_table(checks: Iterable[Sequence[str]]) -> str:
    """Claims with what was found, one a line; see [`~hf_ftedit.Check`]."""
    table = Table("", "claim", "found", "verdict")
    for check in checks:
        table.add_row(*check)
    return _drawn(table)


def parts_table(parts: Iterable[Mapping[str, Any]]) -> str:
    """What was merged, as `edit_config.yaml` records it."""
    table = Table("part", "edits", "weight", "efficacy alone", "here")
    for part in parts:
        scores = ("—" if part[name] is None else f"{part[name]:.1f}" for name in ("efficacy_alone", "efficacy"))
        table.add_row(part["name"], str(part["n_edits"]), f"{part['weight']:g}", *scores)
    return _drawn(table)


def _earlier(results: Mapping[str, Any]) -> list[str]:
    """What became of the edits of the adapter before this one."""
    if found := results.get("revoked"):
        back = f"{score_text(found, 'back')} percent of {found['n_probes']} prompts are answered as before the edits"
        return ["", f"{found['n_edits']} edits of {found['adapter']} revoked: {back}"]
    if not (found := results.get("retention")):
        return []
    table = Table("", "before", "after")
    for name, label in SCORES.items():
        if found["after"].get(name) is not None:
            table.add_row(label, *(score_text(found[when], name) for when in ("before", "after")))
    return [
        "",
        f"The {found['n_edits']} earlier edits of {found['adapter']}, before and after this training",
        _drawn(table),
    ]


def _scores(measured: Mapping[str, Mapping[str, Any]], change: Mapping[str, Any] | None) -> str:
    last = list(measured.values())[-1]
    table = Table("", *measured, *(["change"] if change else []), "edits", "probes")
    for name, label in SCORES.items():
        if all(found.get(name) is None for found in measured.values()):
            continue
        cells = [label, *(score_text(found, name) for found in measured.values())]
        if change:
            cells.append(change_text(change.get(name)))
        edits, probes = counts(last, name)
        table.add_row(*cells, *(("", f"{probes} texts") if edits is None else (str(edits), str(probes))))
    return _drawn(table)


def _protocols(measured: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in SCORES if name not in ("fluency", "consistency", "perplexity")]
    table = Table("", "", *(SCORES[name] for name in names))
    for protocol, label in PROTOCOLS.items():
        rows = {when: [found.get(protocol, {}).get(name) for name in names] for when, found in measured.items()}
        if all(value is None for row in rows.values() for value in row):
            continue
        for when, row in rows.items():
            table.add_row(label, when, *("—" if value is None else f"{value:.1f}" for value in row))
    return _drawn(table)


def _aspects(measured: Mapping[str, Mapping[str, Any]]) -> str:
    *_, last = measured.values()
    generated = [name for name in ("exact_match", "containment") if name in last]
    table = Table("", "", "portability", *(PROTOCOLS[name] for name in generated), "edits", "probes")
    for aspect in last["portability_aspects"]:
        for when, found in measured.items():
            scores = found["portability_aspects"][aspect]
            cells = [score_text(scores, "portability"), *(score_text(scores, name) for name in generated)]
            table.add_row(aspect, when, *cells, str(scores["n_edits"]), str(scores["n_probes"]))
    return _drawn(table)


def _tasks(rows: Sequence[Mapping[str, Any]]) -> str:
    table = Table("task", "metric", "before", "after", "change", "n")
    for row in rows:
        numbers = ["" if row[name] is None else f"{row[name]:.4g}" for name in ("before", "after")]
        change = "" if row["difference"] is None else f"{row['difference']:+.4g}"
        error = "" if row.get("difference_stderr") is None else f" ± {row['difference_stderr']:.2g}"
        table.add_row(str(row["task"]), str(row["metric"]), *numbers, change + error, str(row["n"] or ""))
    return _drawn(table)


def _drawn(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=WIDTH, markup=False, emoji=False, highlight=False, color_system=None).print(table)
    return out.getvalue().rstrip()
