"""Model cards: plain data to Markdown text, nothing read and nothing written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from hf_ftedit.diagnosis import diagnose
from hf_ftedit.markdown import code_block, code_span, literal, markdown_text
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
SHOWN_ROWS = 2  # of each kind, of a dataset
# What a command line or an address may hold as it is: a name on the Hub, of a folder, of an edit.
PLAIN = re.compile(r"\w[\w.:-]{0,95}(/[\w.:-]{1,96})?", re.ASCII)
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
    after, shown = results["after"], records[:SHOWN_EDITS]
    said = [(said["before"], said["after"]) for said in results.get("answers") or ()]
    asked_for = [(edit.target_true or "—", edit.target_new) for edit in shown]
    example = results.get("example") or {}
    return _render(
        "model_card.md",
        metadata=_metadata(results, recipe, record, adapter),
        base_model=results["base_model"],
        n_edits=len(records),
        headline=_headline(results),
        shown=[(edit.prompt, *pair) for edit, pair in zip(shown, said or asked_for, strict=False)],
        answered=bool(said),
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
        fluency=after.get("fluency"),
        texts=after.get("n_texts"),
        diagnosis=diagnose(results, recipe),
        edit_id=next((edit.edit_id for edit in records if _is_plain(edit.edit_id)), "EDIT_ID"),
        changed=_yaml({name: recipe[name] for name in record.get("changed", recipe) if name in recipe}),
        made_with=[f"{name} {version}" for name, version in record.get("made_with", {}).items()],
        datasets=_datasets(record),
        adapter=adapter,
        **_limits(records, results),
    )


def dataset_card(
    config: dict[str, Any],
    sizes: dict[str, int],
    metadata: dict[str, Any],
    rows: Iterable[Mapping[str, str]] = (),
) -> str:
    """
    The card of an augmented edit dataset.

    Args:
        config (`dict`):
            Settings of the augmentation.
        sizes (`dict[str, int]`):
            Rows of each split.
        metadata (`dict`):
            What the front matter must hold, such as `configs`; the tags of such a dataset are added.
        rows (`Iterable[Mapping[str, str]]`, *optional*):
            Some training rows; the first ones of each kind are shown.
    """
    tags = list(dict.fromkeys([*(metadata.get("tags") or ()), *DATASET_TAGS]))
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    return _render(
        "dataset_card.md",
        metadata=_front_matter({**metadata, "tags": tags}),
        settings=_yaml(config),
        sizes=sizes,
        shown=[row for found in kinds.values() for row in found[:SHOWN_ROWS]],
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


def _render(name: str, **values: Any) -> str:
    source = (files("hf_ftedit") / "templates" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"text": markdown_text, "code": code_span, "block": code_block, "literal": literal}
    return environment.from_string(source).render(**values).rstrip() + "\n"


def _metadata(results: dict[str, Any], recipe: dict[str, Any], record: Mapping[str, Any], adapter: bool) -> str:
    base, metadata = results["base_model"], dict[str, Any]()
    tags = TAGS if adapter else [tag for tag in TAGS if tag != "lora"]
    if _on_hub(results):
        relation = "adapter" if adapter else "finetune"
        metadata |= {"base_model": base, "base_model_relation": relation}
        tags = [*tags, f"base_model:{relation}:{base}"]
    metadata["library_name"] = "peft" if adapter else "transformers"
    if datasets := _datasets(record):
        metadata["datasets"] = datasets
    metadata |= {"pipeline_tag": "text-generation", "tags": tags}
    measured = [
        {
            "type": name,
            "name": label,
            "value": round(results["after"][name], 2),
            "args": _sizes(results["after"], name),
        }
        for name, label in SCORES.items()
        if results["after"].get(name) is not None
    ]
    task = {"type": "text-generation", "name": "Model editing"}
    dataset = {"type": "edits", "name": f"edits.jsonl ({_edits(results['n_edits'])})"}
    name = (record.get("repo_id") or "edited model").rpartition("/")[2]
    metadata["model-index"] = [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": measured}]}]
    return _front_matter(metadata)


def _edits(number: int) -> str:
    return "1 edit" if number == 1 else f"{number} edits"


def _front_matter(metadata: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---"


def _yaml(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).rstrip() if settings else ""


def _datasets(record: Mapping[str, Any]) -> list[str]:
    """Datasets of the Hub that edits and facts came from, without the split."""
    names = (name.partition(":")[0] for name in record.get("datasets") or ())
    return list(dict.fromkeys(name for name in names if _has_namespace(name)))


def _headline(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    before, after = results["before"], results["after"]
    name = "efficacy" if after.get("edit_score") is None else "edit_score"
    if after.get(name) is None:
        return "How well the edits hold was not measured."
    _, probes = counts(after, name)
    was = "—" if before.get(name) is None else f"{before[name]:.1f}"
    return f"{SCORES[name].capitalize()} on {probes} probes: {after[name]:.1f} of 100; before the edits: {was}."


def _on_hub(results: Mapping[str, Any]) -> bool:
    """Whether the base model is one of the Hub: it has a namespace, or was loaded at a commit."""
    base = results["base_model"]
    return base != EMBEDDED and (_has_namespace(base) or bool(_is_plain(base) and results.get("base_model_revision")))


def _has_namespace(name: str) -> bool:
    return "/" in name and _is_plain(name)


def _is_plain(name: str) -> bool:
    return bool(PLAIN.fullmatch(name))


def _loading(results: dict[str, Any], recipe: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What the snippets need to load the base model as it was, and the files that the recipe needs beside it."""
    revision, repo_id = results.get("base_model_revision"), record.get("repo_id")
    wanted = {name: recipe[name] for name in ("load_in_4bit", "load_in_8bit") if recipe.get(name)}
    if wanted and recipe.get("bnb_4bit_quant_type"):
        wanted["bnb_4bit_quant_type"] = recipe["bnb_4bit_quant_type"]
    settings = ", ".join(
        f"{name}={literal(value) if isinstance(value, str) else value}" for name, value in wanted.items()
    )
    embedded, on_hub = results["base_model"] == EMBEDDED, _on_hub(results)
    needed = {
        "the base model": None if embedded or on_hub else results["base_model"],
        "the adapter": recipe.get("adapter"),
        "the locality pool": recipe.get("locality_pool"),
    }
    return {
        "embedded": embedded,
        "on_hub": on_hub,
        "revision": revision,
        "dtype": recipe.get("dtype", "float32"),
        "bits": f"BitsAndBytesConfig({settings})" if settings else "",
        "repo_id": repo_id,
        "here": repo_id or ".",
        "needed": [
            f"{what} {code_span(name)}"
            for what, name in needed.items()
            if name and not ("/" in name and _is_plain(name))
        ],
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
        "vllm_rank": next((allowed for allowed in VLLM_RANKS if allowed >= rank), None),
        "most_rank": VLLM_RANKS[-1],
        "served": results["base_model"] if _is_plain(results["base_model"]) else "BASE_MODEL",
        "unusual": [name for name, used in unusual.items() if used],
    }


def _part_rows(record: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            markdown_text(part["name"]),
            markdown_text(part.get("revision") or "—")[:7],
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
    counterfactual = "The edit list gives no old answers."
    if changed:
        counterfactual = f"The edit list gives an old answer for {changed} of {_edits(len(records))}, to be replaced."
    was = {
        name: "" if before.get(name) is None else f" (before the edits: {before[name]:.1f})"
        for name in ("portability", "locality")
    }
    ripple = "Consequences were not measured here."
    if after.get("portability") is not None:
        probed = f"On {probes['portability']} probed consequences"
        ripple = f"{probed} portability is {after['portability']:.1f} percent{was['portability']}."
    neighbors = "Neighboring facts were not measured here."
    if after.get("locality") is not None:
        probed = f"On {probes['neighborhood']} probed neighboring facts"
        neighbors = f"{probed} locality is {after['locality']:.1f} percent{was['locality']}."
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


def _sizes(scores: Mapping[str, Any], name: str) -> dict[str, int]:
    edits, probes = counts(scores, name)
    return {"n_texts": probes} if edits is None else {"n_edits": edits, "n_probes": probes}


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
