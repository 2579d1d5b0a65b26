"""Model cards: plain data to Markdown text, nothing read and nothing written."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from hf_ftedit.diagnosis import diagnose
from hf_ftedit.predictions import GENERATED, NAMES
from hf_ftedit.records import EditRecord

TAGS = ["model-editing", "knowledge-editing", "hf-ftedit", "lora"]
DATASET_TAGS = ["hf-ftedit", "model-editing"]
EMBEDDED = "hf_ftedit/embedded"
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
KINDS = {**{name: kind for kind, name in NAMES.items()}, "fluency": "generation", "consistency": "generation"}
SHOWN_EDITS = 20
SHOWN_CHARACTERS = 300  # of a text in a table
SPECIAL = "".join(re.escape(char) for char in r"\`*_{}[]<>()#+-!|~$")
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that `vllm serve --max-lora-rank` accepts


def model_card(
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
    record: Mapping[str, Any] | None = None,
    *,
    adapter: bool = True,
) -> str:
    """
    The card of an edited model: what was edited, how to use it, how well it went, with which settings, and limits.

    Args:
        records (`Sequence[EditRecord]`):
            The edits; the first twenty are shown.
        results (`dict`):
            What `eval_results.json` holds. Its `answers` are what the model said to the first edits' prompts before,
            and says after; without them the edits' own targets are shown.
        recipe (`dict`):
            What `edit_config.yaml` holds.
        record (`Mapping`, *optional*):
            What `edit_config.yaml` holds under `record`.
        adapter (`bool`, *optional*, defaults to `True`):
            Whether the folder holds an adapter rather than a whole model.
    """
    record = record or {}
    after = results["after"]
    shown = records[:SHOWN_EDITS]
    answers = [(said["before"], said["after"]) for said in results.get("answers") or ()]
    said = answers or [(edit.target_true or "—", edit.target_new) for edit in shown]
    example = results.get("example") or {}
    return _render(
        "model_card.md",
        metadata=_metadata(results, recipe, record, adapter),
        base_model=results["base_model"],
        n_edits=len(records),
        shown=[
            [markdown_text(text) for text in (edit.prompt, *pair)] for edit, pair in zip(shown, said, strict=False)
        ],
        answered=bool(answers),
        more=len(records) - len(shown),
        parts=_part_rows(record),
        combination=record.get("combination"),
        retention=_retention(results.get("retention")),
        revoked=_revoked(results.get("revoked")),
        prompt=example.get("prompt", records[0].prompt),
        output=example.get("output"),
        chat=bool(recipe.get("chat_template")),
        **_loading(results, recipe, record),
        **_serving(recipe, record, results),
        score_columns=["before", "after", *(["change"] if results.get("change") else []), "edits", "probes"],
        scores=_score_rows(results),
        protocol=results["protocol"],
        probes=after["n_probes"],
        generated=_generated_rows(results),
        aspects=_aspect_rows(results),
        texts=after.get("n_texts"),
        diagnosis=diagnose(results, recipe),
        changed=_yaml({name: recipe[name] for name in record.get("changed", recipe) if name in recipe}),
        made_with=", ".join(f"{name} {version}" for name, version in record.get("made_with", {}).items()),
        recipe_pool=recipe.get("locality_pool"),
        adapter=adapter,
        **_limits(records, results),
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


def metadata_of(card: str) -> dict[str, Any]:
    """
    The metadata in front of a card.

    Raises:
        `ValueError` or `yaml.YAMLError`: there is none, or it is no YAML mapping.
    """
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    metadata = yaml.safe_load(found[1]) if found else None
    if not isinstance(metadata, dict):
        raise ValueError("the card has no metadata")
    return metadata


def markdown_text(text: str) -> str:
    """
    `text` so that Markdown and HTML show it as it is, on one line: it can neither end a table nor start markup.

    A long text is cut to its first part, and what cannot be seen or turns the direction of writing is named: `U+202E`.
    """
    text = " ".join(text.split())
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS].rstrip()}…"
    text = html.escape(visible(text), quote=False)
    text = re.sub(rf"([{SPECIAL}])", r"\\\1", text)
    return re.sub(r":(?=//)|@|(?<=\bwww)\.", lambda mark: f"&#{ord(mark[0])};", text)  # no link by itself


def visible(text: str, name: Callable[[str], str] = lambda char: f"[U+{ord(char):04X}]") -> str:
    """`text` with a name for each character that cannot be seen, turns the direction of writing, or piles up."""
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        hidden = unicodedata.category(char) in ("Cc", "Cf", "Co", "Cn") and char not in "\n\u200c\u200d"
        shown.append(name(char) if hidden or marks > 4 else char)  # the two are needed in Persian and in emoji
    return "".join(shown)


def code_span(text: str) -> str:
    """`text` as a code span, on one line, with as many backticks around it as it takes."""
    text = visible(" ".join(text.split()))
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """`text` as a fenced block, with as many backticks around it as it takes."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def literal(text: str) -> str:
    """`text` as a Python and JSON literal in which everything can be seen."""
    return visible(json.dumps(text, ensure_ascii=False), lambda char: json.dumps(char)[1:-1])


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _render(name: str, **values: Any) -> str:
    source = (files("hf_ftedit") / "templates" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"code": code_span, "block": code_block, "literal": literal}
    return environment.from_string(source).render(**values).rstrip() + "\n"


def _metadata(results: dict[str, Any], recipe: dict[str, Any], record: Mapping[str, Any], adapter: bool) -> str:
    base, metadata = results["base_model"], dict[str, Any]()
    tags = TAGS if adapter else [tag for tag in TAGS if tag != "lora"]
    if _on_hub(results):
        relation = "adapter" if adapter else "finetune"
        metadata |= {"base_model": base, "base_model_relation": relation}
        tags = [*tags, f"base_model:{relation}:{base}"]
    metadata["library_name"] = "peft" if adapter else "transformers"
    if datasets := record.get("datasets"):
        metadata["datasets"] = [name.partition(":")[0] for name in datasets]
    metadata |= {"pipeline_tag": "text-generation", "tags": tags}
    measured = [
        {
            "type": name,
            "name": label,
            "value": round(results["after"][name], 2),
            "args": dict(zip(("n_edits", "n_probes"), counts(results["after"], name), strict=True)),
        }
        for name, label in SCORES.items()
        if results["after"].get(name) is not None
    ]
    task = {"type": "text-generation", "name": "Model editing"}
    dataset = {"type": "edits", "name": f"edits.jsonl ({results['n_edits']} edits)"}
    name = (record.get("repo_id") or "edited model").rpartition("/")[2]
    metadata["model-index"] = [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": measured}]}]
    return _front_matter(metadata)


def _front_matter(metadata: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---"


def _yaml(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip() if settings else ""


def _on_hub(results: Mapping[str, Any]) -> bool:
    """Whether the base model is one of the Hub: it has a namespace, or was loaded at a commit."""
    base = results["base_model"]
    return base != EMBEDDED and bool("/" in base or results.get("base_model_revision"))


def _loading(results: dict[str, Any], recipe: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What the snippets need to load the base model as it was."""
    revision, repo_id = results.get("base_model_revision"), record.get("repo_id")
    wanted = {name: recipe[name] for name in ("load_in_4bit", "load_in_8bit") if recipe.get(name)}
    if wanted and recipe.get("bnb_4bit_quant_type"):
        wanted["bnb_4bit_quant_type"] = recipe["bnb_4bit_quant_type"]
    settings = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    return {
        "embedded": results["base_model"] == EMBEDDED,
        "on_hub": _on_hub(results),
        "pinned": f", revision={literal(revision)}" if revision else "",
        "dtype": recipe.get("dtype", "float32"),
        "bits": f", quantization_config=BitsAndBytesConfig({settings})" if settings else "",
        "repo_id": repo_id,
        "here": repo_id or ".",
    }


def _serving(recipe: dict[str, Any], record: Mapping[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What a serving engine must be told, and what it may not support."""
    rank = record.get("rank") or recipe.get("lora_r", 0)
    unusual = {
        "a LoRA on the token embedding": recipe.get("lora_embedding"),
        "DoRA": recipe.get("use_dora"),
        "whole layers saved with it": recipe.get("lora_modules_to_save"),
        "LoRA on single parameters": recipe.get("lora_target_parameters"),
    }
    return {
        "rank": rank,
        "vllm_rank": next((allowed for allowed in VLLM_RANKS if allowed >= rank), rank),
        "unusual": [name for name, used in unusual.items() if used],
        "served_base": results["base_model"] if _on_hub(results) else "BASE_MODEL_FOLDER",
    }


def _part_rows(record: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            code_span(part["name"]),
            (part.get("revision") or "—")[:7],
            str(part["n_edits"]),
            f"{part['weight']:g}",
            *("—" if part[name] is None else f"{part[name]:.1f}" for name in ("efficacy_alone", "efficacy")),
        ]
        for part in record.get("parts") or ()
    ]


def _retention(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The scores of earlier edits, as rows."""
    if not found:
        return None
    names = [name for name in SCORES if found["after"].get(name) is not None]
    rows = [[SCORES[name], *(score_text(found[when], name) for when in ("before", "after"))] for name in names]
    return {**found, "rows": rows}


def _revoked(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {**found, "back": score_text(found, "back")} if found else None


def _limits(records: Sequence[EditRecord], results: dict[str, Any]) -> dict[str, str]:
    """What is known of the limits, in sentences."""
    before, after = results["before"], results["after"]
    probes, changed = after["n_probes"], sum(edit.target_true is not None for edit in records)
    counterfactual = f"{changed} of the {len(records)} edits replace an answer that their list gives as the old one."
    ripple = "Consequences were not measured here."
    if after.get("portability") is not None:
        was = "" if before.get("portability") is None else f" (before the edits: {before['portability']:.1f})"
        ripple = f"Of {probes['portability']} probed consequences {after['portability']:.1f} percent are right{was}."
    neighbors = "Neighboring facts were not measured here."
    if after.get("locality") is not None:
        lost = 100 - after["locality"]
        neighbors = f"Of {probes['neighborhood']} probed neighboring facts {lost:.1f} percent are not answered rightly"
        was = before.get("locality")
        neighbors += "." if was is None else f" (before the edits: {100 - was:.1f})."
    abilities = "They were not measured here."
    if after.get("perplexity") is not None and before.get("perplexity") is not None:
        change = f"{before['perplexity']:.2f} to {after['perplexity']:.2f}"
        abilities = f"Perplexity on {after['n_texts']} texts went from {change}; nothing else was measured."
    return {"counterfactual": counterfactual, "ripple": ripple, "neighbors": neighbors, "abilities": abilities}


def _score_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, label in SCORES.items():
        if all(results[when].get(name) is None for when in ("before", "after")):
            continue
        cells = [label, *(score_text(results[when], name) for when in ("before", "after"))]
        if results.get("change"):
            cells.append(change_text(results["change"].get(name)))
        rows.append([*cells, *("" if count is None else str(count) for count in counts(results["after"], name))])
    return rows


def counts(scores: Mapping[str, Any], name: str) -> tuple[int | None, int]:
    """Edits and probes behind a score; of perplexity, texts alone."""
    if name == "perplexity":
        return None, scores["n_texts"]
    kinds = [KINDS[name]] if name in KINDS else ["rewrite", "paraphrase", "neighborhood"]
    scored = scores.get("n_edits_scored", {}).get(name, scores["n_edits"])
    return scored, sum(scores["n_probes"].get(kind, 0) for kind in kinds)


def change_text(found: Mapping[str, Any] | None) -> str:
    """A change with its p-value, as `"+98.3 (p < 0.001)"`; nothing where there is none."""
    if found is None:
        return ""
    p_value = "p < 0.001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
    return f"{found['difference']:+.1f} ({p_value})"


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
