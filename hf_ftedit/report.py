"""Results as text for people: tables, and what they mean."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_ftedit.card import SCORES, score_text
from hf_ftedit.diagnosis import diagnose
from hf_ftedit.predictions import NAMES

WIDTH = 110
KINDS = {**{name: kind for kind, name in NAMES.items()}, "fluency": "generation", "consistency": "generation"}
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
            [`~hf_ftedit.scoring.score`]; `"change"`, see [`~hf_ftedit.scoring.compare`]; `"tasks"`, see
            [`~hf_ftedit.harness.task_changes`].
        settings (`Mapping`, *optional*):
            What `edit_config.yaml` holds, for the diagnosis.
    """
    measured = {when: results[when] for when in ("before", "after") if when in results}
    last = list(measured.values())[-1]
    edits = "1 edit" if last["n_edits"] == 1 else f"{last['n_edits']} edits"
    parts = [
        f"{edits}, {last['protocol']} protocol, percent (95 % interval)",
        _scores(measured, results.get("change")),
    ]
    if "exact_match" in last:
        title = "By protocol, percent; exact match and containment are of the model's own answers"
        parts += ["", title, _protocols(measured)]
    if any(last.get("portability_aspects") or ()):
        parts += ["", "Portability by aspect, percent", _aspects(measured)]
    if results.get("tasks"):
        parts += ["", "Tasks of lm-evaluation-harness", _tasks(results["tasks"])]
    sentences = diagnose(results, settings)
    if not sentences and last["edit_score_note"]:
        parts += ["", *textwrap.wrap(f"No edit score: {last['edit_score_note']}. Such probes would tell.", 100)]
    if sentences:
        wrapped = (textwrap.fill(line, 100, initial_indent="- ", subsequent_indent="  ") for line in sentences)
        parts += ["", "Diagnosis", *wrapped]
    return "\n".join(parts)


def _scores(measured: Mapping[str, Mapping[str, Any]], change: Mapping[str, Any] | None) -> str:
    last = list(measured.values())[-1]
    table = Table("", *measured, *(["change"] if change else []), "edits", "probes")
    for name, label in SCORES.items():
        if all(found.get(name) is None for found in measured.values()):
            continue
        cells = [label, *(score_text(found, name) for found in measured.values())]
        if change:
            cells.append(_change(change.get(name)))
        table.add_row(*cells, *_counts(last, name))
    return _drawn(table)


def _counts(scores: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Edits and probes behind a score; of perplexity, texts."""
    if name == "perplexity":
        return "", f"{scores['n_texts']} texts"
    edits = scores["n_edits"] if name == "edit_score" else scores["n_edits_scored"][name]
    kinds = [KINDS[name]] if name in KINDS else ["rewrite", "paraphrase", "neighborhood"]
    return str(edits), str(sum(scores["n_probes"][kind] for kind in kinds))


def _change(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    p_value = "p < 0.001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
    return f"{found['difference']:+.1f} ({p_value})"


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
