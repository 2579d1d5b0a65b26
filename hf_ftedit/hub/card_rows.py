"""Results to the rows of a card's tables, cell by cell as Markdown text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_ftedit.evaluation import GENERATED, SCORES, change_text, counts, score_text
from hf_ftedit.hub.markdown import markdown_text


def score_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Each score that was measured: before, after, how it changed, and the edits and probes behind it."""
    rows = []
    for name, label in SCORES.items():
        if all(results[when].get(name) is None for when in ("before", "after")):
            continue
        cells = [label, *(score_text(results[when], name) for when in ("before", "after"))]
        if results.get("change"):
            cells.append(change_text(results["change"].get(name)))
        rows.append([*cells, *("" if count is None else str(count) for count in counts(results["after"], name))])
    return rows


def generated_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Scores of the model's own answers, where they were generated: exact match before and after, then containment."""
    if "exact_match" not in results["after"]:
        return []
    columns = [results[when][protocol] for protocol in GENERATED for when in ("before", "after")]
    names = [name for name in SCORES if any(column.get(name) is not None for column in columns)]
    return [[SCORES[name], *(score_text(column, name) for column in columns)] for name in names]


def aspect_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Portability by aspect, before and after, with the number of probes."""
    aspects = results["after"].get("portability_aspects") or {}
    return [
        [
            markdown_text(aspect),
            *(score_text(results[when]["portability_aspects"][aspect], "portability") for when in ("before", "after")),
            str(found["n_probes"]),
        ]
        for aspect, found in aspects.items()
    ]


def retention_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The scores of earlier edits, before and after."""
    names = [name for name in SCORES if found["after"].get(name) is not None]
    return [[SCORES[name], *(score_text(found[when], name) for when in ("before", "after"))] for name in names]


def part_rows(provenance: Mapping[str, Any]) -> list[list[str]]:
    """What was merged: each adapter with its commit, edits and weight, and its efficacy alone and here."""
    return [
        [
            markdown_text(part["name"]),
            markdown_text(part.get("revision") or "—")[:7],
            str(part["n_edits"]),
            f"{part['weight']:g}",
            *("—" if part[name] is None else f"{part[name]:.1f}" for name in ("efficacy_alone", "efficacy")),
        ]
        for part in provenance.get("parts") or ()
    ]
