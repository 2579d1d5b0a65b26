"""Tables of results: rows made once, drawn for the console or written as Markdown for a model card."""

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich import table as rich_table
from rich.console import Console

from hf_ftedit.errors import EditError, one_line
from hf_ftedit.evaluation.diagnosis import MEASURABLE, diagnose
from hf_ftedit.evaluation.scoring import ERASURE_SCORES, GENERATED, NAMES, SCORED, TEXT_SCORES
from hf_ftedit.text import counted, visible

WIDTH = 110
# Names of scores and of protocols in tables.
_SCORES = (
    "edit_score efficacy said_exactly generalization old_answer_said old_answer_probability locality near_names "
    "portability fluency consistency"
)
SCORES = {name: name.replace("_", " ") for name in [*_SCORES.split(), "known_facts", "drift", "perplexity"]}
PROTOCOLS = {name: name.replace("_", " ") for name in ("probability", "accuracy", *GENERATED)}
PER_PROTOCOL = ("edit_score", *SCORED, "portability")
_KINDS = {name: kind for kind, name in NAMES.items()} | dict.fromkeys(TEXT_SCORES, "generation")
_KINDS |= dict.fromkeys(ERASURE_SCORES, "erased") | {"said_exactly": "rewrite"}
# Scores that are no means over edits: by what they are counted.
_COUNTED = {
    "perplexity": ("n_texts", "text"),
    "drift": ("n_drift_prompts", "prompt"),
    "known_facts": ("n_known_facts", "fact"),
}


class Table(NamedTuple):
    """A table of plain text: the names of its columns, and the cells of each row."""

    header: list[str]
    rows: list[list[str]]
    n_names: int = 1  # columns on the left with names from anywhere, which Markdown must escape; the rest are numbers

    def text(self) -> str:
        """The table in box characters, at most `WIDTH` columns wide."""
        table = rich_table.Table(*self.header)
        for row in self.rows:
            table.add_row(*map(visible, row))
        return drawn(table)

    def markdown(self, escape: Callable[[str], str]) -> str:
        """The table in Markdown; not by rich's, which pads the columns: a changed cell would change every line."""
        rows = [[*map(escape, row[: self.n_names]), *row[self.n_names :]] for row in self.rows]
        header, *lines = (f"| {' | '.join(row)} |" for row in [self.header, *rows])
        return "\n".join([header.replace("|  |", "| |"), "|" + "---|" * len(self.header), *lines])


def drawn(table: rich_table.Table, width: int = WIDTH) -> str:
    """The text of a table of rich."""
    out = io.StringIO()
    # Neither markup nor colours: names of aspects and adapters may hold brackets, and logs have no terminal.
    console = Console(file=out, width=width, markup=False, emoji=False, highlight=False, color_system=None)
    console.is_jupyter = False  # in a notebook, rich would display the table instead of writing it
    console.print(table)
    return out.getvalue().rstrip()


def results_table(results: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """
    Results as text: scores, what changed, and a diagnosis in words.

    Args:
        results (`Mapping`): What `eval_results.json` holds: scores by `"before"` and, where there is an edited model,
            `"after"`, see [`~hf_ftedit.score`]; `"change"`, see [`~hf_ftedit.compare`]; `"tasks"`, see
            [`~hf_ftedit.evaluation.lm_eval_harness.compare_tasks`].
        settings (`Mapping`, *optional*): What `edit_config.yaml` holds, for the diagnosis.

    Raises:
        [`~hf_ftedit.EditError`]: there are no scores in it.
    """
    try:
        return visible("\n".join(_parts(results, settings)))
    except (AttributeError, KeyError, TypeError) as error:
        problem = f"results are none: {one_line(error)} is missing"
        raise EditError(f"{problem}; give what eval_results.json holds") from error


def _parts(results: Mapping[str, Any], settings: Mapping[str, Any] | None) -> list[str]:
    """The lines, tables and paragraphs of [`results_table`]."""
    _, last = _measured(results)
    parts = [f"{counted(last['n_edits'], 'edit')}, {protocol_text({'after': last})}, percent (95 % interval)"]
    if number := last.get("n_made_probes"):
        parts.append(f"The package made the probes of {counted(number, 'edit')}; an exam of your own is surer")
    parts.append(scores_table(results).text())
    if last.get("drift") is not None:
        parts.append("Drift: mean KL divergence from the unedited model in nats a token, on unrelated prompts")
    if "exact_match" in last:
        title = "By protocol, percent; exact match and containment are of the model's own answers"
        if last.get("whole_answers"):
            title = "By protocol, percent; exact match: nothing else is said, and what must stay is word for word so"
        parts += ["", title, _protocols_table(results).text()]
    if last.get("portability_aspects"):
        parts += ["", "Portability by aspect, percent", _aspects_table(results).text()]
    if results.get("tasks"):
        parts += ["", "Tasks of lm-evaluation-harness", _tasks_table(results["tasks"]).text()]
    if revoked := results.get("revoked"):
        edits = f"{counted(revoked['n_edits'], 'edit')} of {revoked['adapter']}"
        back = f"{score_text(revoked, 'back')} percent of {counted(revoked['n_probes'], 'prompt')}"
        parts += ["", f"{edits} revoked; answered as before the edits: {back}"]
    elif retention := results.get("retention"):
        edits = f"{counted(retention['n_edits'], 'edit')} of {retention['adapter']}"
        parts += ["", f"{edits} trained again: scores before and after", retention_table(retention).text()]
    if sentences := diagnose(results, settings):
        wrapped = (textwrap.fill(line, 100, initial_indent="- ", subsequent_indent="  ") for line in sentences)
        parts += ["", "Diagnosis", *wrapped]
    elif last["edit_score_note"]:
        parts += ["", *textwrap.wrap(f"No edit score: {last['edit_score_note']}. {MEASURABLE}", 100)]
    return parts


def scores_table(results: Mapping[str, Any]) -> Table:
    """Each score that was measured: before, after, its change, the edits and probes behind it."""
    measured, last = _measured(results)
    change, rows = results.get("change"), []
    for name, label in SCORES.items():
        having = [scores for scores in measured.values() if scores.get(name) is not None]
        if not having:
            continue
        row = [label, *(score_text(scores, name) for scores in measured.values())]
        edits, probes = counts(having[-1] if name in _COUNTED else last, name)
        behind = ["", counted(probes, _COUNTED[name][1])] if edits is None else [str(edits), str(probes)]
        rows.append([*row, *([change_text(change.get(name))] if change else []), *behind])
    return Table(["", *measured, *(["change"] if change else []), "edits", "probes"], rows)


def answers_table(results: Mapping[str, Any]) -> Table:
    """Scores of own answers by protocol, before and after, with whole ones accuracy; no rows where there are none."""
    protocols = ("exact_match", "accuracy") if results["after"].get("whole_answers") else GENERATED
    pairs = [(protocol, when) for protocol in protocols for when in ("before", "after")]
    header = ["", *(f"{PROTOCOLS[name]}, before" if when == "before" else when for name, when in pairs)]
    has_answers = "exact_match" in results["after"]
    return _side_by_side(header, [results[when].get(protocol, {}) for protocol, when in pairs if has_answers])


def portability_table(results: Mapping[str, Any]) -> Table:
    """Portability by aspect, before and after, with the number of probes."""
    rows = []
    for aspect, scores in (results["after"].get("portability_aspects") or {}).items():
        both = (results[when]["portability_aspects"][aspect] for when in ("before", "after"))
        rows.append([aspect, *(score_text(one, "portability") for one in both), str(scores["n_probes"])])
    return Table(["aspect", "before", "after", "probes"], rows)


def retention_table(retention: Mapping[str, Any]) -> Table:
    """Scores of an earlier adapter's edits before and after training went on from it."""
    return _side_by_side(["", "before", "after"], [retention[when] for when in ("before", "after")])


def _side_by_side(header: list[str], columns: Sequence[Mapping[str, Any]]) -> Table:
    """The scores that one of the columns has, in all of them."""
    names = [name for name in SCORES if any(column.get(name) is not None for column in columns)]
    return Table(header, [[SCORES[name], *(score_text(column, name) for column in columns)] for name in names])


def parts_table(parts: Iterable[Mapping[str, Any]]) -> Table:
    """Merged adapters, as `edit_config.yaml` records them: efficacy alone by their own cards, here after merging."""
    header = ["adapter", "commit", "edits", "weight", "efficacy alone", "efficacy here"]
    rows = []
    for part in parts:
        efficacy = (_number(part[name]) for name in ("efficacy_alone", "efficacy"))
        commit = (part.get("revision") or "—")[:7]
        rows.append([part["name"], commit, str(part["n_edits"]), f"{part['weight']:g}", *efficacy])
    return Table(header, rows, n_names=2)


def _protocols_table(results: Mapping[str, Any]) -> Table:
    measured, last = _measured(results)
    rows = []
    for protocol, label in PROTOCOLS.items():
        if last.get("whole_answers") and protocol == last["protocol"]:
            continue  # they are the table above
        values = [(when, scores.get(protocol, {})) for when, scores in measured.items()]
        cells = [[label, when, *(_number(each.get(name)) for name in PER_PROTOCOL)] for when, each in values]
        if any(cell != "—" for row in cells for cell in row[2:]):
            rows += cells
    return Table(["", "", *(SCORES[name] for name in PER_PROTOCOL)], rows)


def _aspects_table(results: Mapping[str, Any]) -> Table:
    measured, last = _measured(results)
    generated = [name for name in GENERATED if name in last]
    rows = []
    for aspect in last["portability_aspects"]:
        for when, result in measured.items():
            scores = result["portability_aspects"][aspect]
            cells = (score_text(scores, name) for name in ("portability", *generated))
            rows.append([aspect, when, *cells, str(scores["n_edits"]), str(scores["n_probes"])])
    return Table(["", "", "portability", *(PROTOCOLS[name] for name in generated), "edits", "probes"], rows)


def _tasks_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for task in tasks:
        numbers = [_number(task[name], ".4g", "") for name in ("before", "after")]
        change = _number(task["difference"], "+.4g", "")
        error = "" if task.get("difference_stderr") is None else f" ± {task['difference_stderr']:.2g}"
        rows.append([str(task["task"]), str(task["metric"]), *numbers, change + error, str(task["n"] or "")])
    return Table(["task", "metric", "before", "after", "change", "n"], rows)


def _number(value: float | None, form: str = ".1f", missing: str = "—") -> str:
    return missing if value is None else f"{value:{form}}"


def _measured(results: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], Mapping[str, Any]]:
    """The scores by `"before"` and `"after"`, and the last of them."""
    measured = {when: results[when] for when in ("before", "after") if results.get(when)}
    if not measured:
        raise EditError("results hold neither 'before' nor 'after'; give what eval_results.json holds")
    return measured, list(measured.values())[-1]


def score_text(scores: Mapping[str, Any], name: str) -> str:
    """A score with its 95 % interval, as `"93.1 (90.2 to 95.4)"`, or a dash where it is undefined."""
    if scores.get(name) is None:
        return "—"
    # A tenth of a nat a token is much drift.
    ends, digits = scores.get(f"{name}_ci95"), 3 if name == "drift" else 1
    return f"{scores[name]:.{digits}f}" + (f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})" if ends else "")


def change_text(change: Mapping[str, Any] | None) -> str:
    """A change with its p-value, as `"+98.3 (p < 0.001)"`; empty where there is none."""
    if change is None:
        return ""
    p_value = "p < 0.001" if change["p_value"] < 0.001 else f"p = {change['p_value']:.3f}"
    return f"{change['difference']:+.1f} ({p_value})"


def protocol_text(results: Mapping[str, Any]) -> str:
    """The protocol of results: `"probability protocol"`, or `"own answers"` of a chat model."""
    _, last = _measured(results)
    protocol = results.get("protocol") or last["protocol"]
    return "own answers" if last.get("whole_answers") and protocol == "containment" else f"{protocol} protocol"


def counts(scores: Mapping[str, Any], name: str) -> tuple[int | None, int]:
    """Edits and probes behind a score; of perplexity texts, of drift prompts, of known facts facts alone."""
    if name in _COUNTED:
        return None, scores[_COUNTED[name][0]]
    kinds = [_KINDS[name]] if name in _KINDS else ["rewrite", "paraphrase", "neighborhood"]
    edits = scores.get("n_edits_scored", {}).get(name, scores["n_edits"])
    return edits, sum(scores["n_probes"].get(kind, 0) for kind in kinds)
