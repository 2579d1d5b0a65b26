"""Model cards: plain data to Markdown text, nothing read and nothing written."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from hf_ftedit.diagnosis import diagnose
from hf_ftedit.predictions import GENERATED
from hf_ftedit.records import EditRecord

TAGS = ["hf-ftedit", "model-editing", "knowledge-editing", "lora"]
DATASET_TAGS = ["hf-ftedit", "model-editing"]
SCORES = {
    "edit_score": "edit score",
    "efficacy": "efficacy",
    "generalization": "generalization",
    "locality": "locality",
    "portability": "portability",
    "fluency": "fluency",
    "consistency": "consistency",
    "perplexity": "perplexity",
}
SHOWN_EDITS = 20
SPECIAL = "".join(re.escape(char) for char in r"\`*_{}[]<>()#+-!|~$")


def model_card(
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
    *,
    adapter: bool = True,
    answers: Sequence[tuple[str, str]] = (),
) -> str:
    """
    The card of an edited model: what was edited, how to use it, how well it went, with which settings, and limits.

    Args:
        records (`Sequence[EditRecord]`):
            The edits; the first twenty are shown.
        results (`dict`):
            What `eval_results.json` holds.
        recipe (`dict`):
            What `edit_config.yaml` holds.
        adapter (`bool`, *optional*, defaults to `True`):
            Whether the folder holds an adapter rather than a whole model.
        answers (`Sequence[tuple[str, str]]`, *optional*):
            What the model said to the first edits' prompts before, and says after. Without it, the edits' own targets
            are shown.
    """
    shown = records[:SHOWN_EDITS]
    said = answers or [(record.target_true or "—", record.target_new) for record in shown]
    return _render(
        "model_card.md",
        metadata=_metadata(results, adapter),
        base_model=results["base_model"],
        n_edits=len(records),
        shown=[
            [markdown_text(text) for text in (record.prompt, *pair)] for record, pair in zip(shown, said, strict=False)
        ],
        answered=bool(answers),
        more=len(records) - len(shown),
        prompt=json.dumps(records[0].prompt, ensure_ascii=False),
        chat=bool(recipe.get("chat_template")),
        target=markdown_text(records[0].target_new),
        scores=_score_rows(results),
        protocol=results["protocol"],
        probes=results["after"]["n_probes"],
        note=results["after"].get("edit_score_note"),
        generated=_generated_rows(results),
        aspects=_aspect_rows(results),
        texts=results["after"].get("n_texts"),
        diagnosis=diagnose(results, recipe),
        counterfactual=any(record.target_true for record in records),
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip(),
        recipe_pool=recipe.get("locality_pool"),
        embedded=results["base_model"] == "hf_ftedit/embedded",
        adapter=adapter,
    )


def dataset_card(config: dict[str, Any], sizes: dict[str, int], metadata: dict[str, Any]) -> str:
    """
    The card of an augmented edit dataset.

    Args:
        config (`dict`):
            Settings of the augmentation.
        sizes (`dict[str, int]`):
            Rows of each split.
        metadata (`dict`):
            What the front matter must hold, such as `configs`; the tags of such a dataset are added.
    """
    settings = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
    tags = list(dict.fromkeys([*(metadata.get("tags") or ()), *DATASET_TAGS]))
    return _render(
        "dataset_card.md", metadata=_front_matter({**metadata, "tags": tags}), settings=settings, sizes=sizes
    )


def markdown_text(text: str) -> str:
    """`text` so that Markdown and HTML show it as it is, on one line: it can neither end a table nor start markup."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(rf"([{SPECIAL}])", r"\\\1", text)


def _render(name: str, **values: Any) -> str:
    source = (files("hf_ftedit") / "templates" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(source).render(**values).rstrip() + "\n"


def _metadata(results: dict[str, Any], adapter: bool) -> str:
    metadata: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
    }
    if "/" in results["base_model"] and results["base_model"] != "hf_ftedit/embedded":
        metadata["base_model"] = results["base_model"]
    metadata["tags"] = TAGS if adapter else [tag for tag in TAGS if tag != "lora"]
    measured = [
        {"type": name, "name": label, "value": round(results["after"][name], 2)}
        for name, label in SCORES.items()
        if results["after"].get(name) is not None
    ]
    task = {"type": "text-generation", "name": "Model editing"}
    dataset = {"type": "edits", "name": f"edits.jsonl ({results['n_edits']} edits)"}
    metadata["model-index"] = [
        {"name": "edited model", "results": [{"task": task, "dataset": dataset, "metrics": measured}]}
    ]
    return _front_matter(metadata)


def _front_matter(metadata: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---"


def _score_rows(results: dict[str, Any]) -> list[list[str]]:
    return [
        [label, *(score_text(results[when], name) for when in ("before", "after"))]
        for name, label in SCORES.items()
        if any(results[when].get(name) is not None for when in ("before", "after"))
    ]


def _generated_rows(results: dict[str, Any]) -> list[list[str]]:
    """Scores of the model's own answers, where they were generated: exact match before and after, then containment."""
    if "exact_match" not in results["after"]:
        return []
    columns = [results[when][protocol] for protocol in GENERATED for when in ("before", "after")]
    names = [name for name in SCORES if any(column.get(name) is not None for column in columns)]
    return [[SCORES[name], *(score_text(column, name) for column in columns)] for name in names]


def _aspect_rows(results: dict[str, Any]) -> list[list[str]]:
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


def score_text(scores: Mapping[str, Any], name: str) -> str:
    """A score with its 95 % interval, as `"93.1 (90.2 to 95.4)"`, or a dash where it is undefined."""
    if scores.get(name) is None:
        return "—"
    interval = scores.get(f"{name}_ci95")
    return f"{scores[name]:.1f}" + (f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else "")
