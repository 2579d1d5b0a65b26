"""Model cards: plain data to Markdown text, nothing read and nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import yaml

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation import SCORES, counts, diagnose, edits_text, score_text
from hf_ftedit.hub.card_metadata import datasets_of, front_matter, has_namespace, is_on_hub, is_plain, model_metadata
from hf_ftedit.hub.card_rows import aspect_rows, generated_rows, part_rows, retention_rows, score_rows
from hf_ftedit.hub.markdown import code_block, code_span, literal, markdown_text
from hf_ftedit.models import EMBEDDED_NAME

DATASET_TAGS = ["hf-ftedit", "model-editing"]
SHOWN_EDITS = 20
SHOWN_ROWS = 2  # of each kind, of a dataset
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that `vllm serve --max-lora-rank` accepts


def model_card(
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
    provenance: Mapping[str, Any] | None = None,
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
        provenance (`Mapping`, *optional*):
            What `edit_config.yaml` holds under `provenance`.
        adapter (`bool`, *optional*, defaults to `True`):
            Whether the folder holds an adapter rather than a whole model.
    """
    provenance = provenance or {}
    after, shown = results["after"], records[:SHOWN_EDITS]
    said = [(said["before"], said["after"]) for said in results.get("answers") or ()]
    asked_for = [(edit.target_true or "—", edit.target_new) for edit in shown]
    example = results.get("example") or {}
    return _render(
        "model_card.md",
        metadata=front_matter(model_metadata(results, provenance, adapter)),
        base_model=results["base_model"],
        n_edits=len(records),
        headline=_headline(results),
        shown=[(edit.prompt, *pair) for edit, pair in zip(shown, said or asked_for, strict=False)],
        answered=bool(said),
        parts=part_rows(provenance),
        combination=provenance.get("combination"),
        retention=_retention(results.get("retention")),
        revoked=_revoked(results.get("revoked")),
        prompt=example.get("prompt", records[0].prompt),
        output=example.get("output"),
        chat=bool(recipe.get("chat_template")),
        **_loading(results, recipe, provenance),
        **_serving(recipe, provenance, results),
        score_columns=["before", "after", *(["change"] if results.get("change") else []), "edits", "probes"],
        scores=score_rows(results),
        protocol=results["protocol"],
        probes=after["n_probes"],
        generated=generated_rows(results),
        aspects=aspect_rows(results),
        fluency=after.get("fluency"),
        texts=after.get("n_texts"),
        diagnosis=diagnose(results, recipe),
        edit_id=next((edit.edit_id for edit in records if is_plain(edit.edit_id)), "EDIT_ID"),
        changed=_yaml({name: recipe[name] for name in provenance.get("changed", recipe) if name in recipe}),
        made_with=[f"{name} {version}" for name, version in provenance.get("made_with", {}).items()],
        datasets=datasets_of(provenance),
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
        metadata=front_matter({**metadata, "tags": tags}),
        settings=_yaml(config),
        sizes=sizes,
        shown=[row for found in kinds.values() for row in found[:SHOWN_ROWS]],
    )


def _render(name: str, **values: Any) -> str:
    source = (files("hf_ftedit") / "templates" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"text": markdown_text, "code": code_span, "block": code_block, "literal": literal}
    return environment.from_string(source).render(**values).rstrip() + "\n"


def _yaml(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).rstrip() if settings else ""


def _headline(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    before, after = results["before"], results["after"]
    name = "efficacy" if after.get("edit_score") is None else "edit_score"
    if after.get(name) is None:
        return "How well the edits hold was not measured."
    _, probes = counts(after, name)
    was = "—" if before.get(name) is None else f"{before[name]:.1f}"
    return f"{SCORES[name].capitalize()} on {probes} probes: {after[name]:.1f} of 100; before the edits: {was}."


def _loading(results: dict[str, Any], recipe: dict[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the snippets need to load the base model as it was, and the files that the recipe needs beside it."""
    revision, repo_id = results.get("base_model_revision"), provenance.get("repo_id")
    wanted = {name: recipe[name] for name in ("load_in_4bit", "load_in_8bit") if recipe.get(name)}
    if wanted and recipe.get("bnb_4bit_quant_type"):
        wanted["bnb_4bit_quant_type"] = recipe["bnb_4bit_quant_type"]
    settings = ", ".join(
        f"{name}={literal(value) if isinstance(value, str) else value}" for name, value in wanted.items()
    )
    embedded, on_hub = results["base_model"] == EMBEDDED_NAME, is_on_hub(results)
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
        "needed": [f"{what} {code_span(name)}" for what, name in needed.items() if name and not has_namespace(name)],
    }


def _serving(recipe: dict[str, Any], provenance: Mapping[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What a serving engine must be told, and what it may not support."""
    rank = provenance.get("rank") or recipe.get("lora_r", 0)
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
        "served": results["base_model"] if is_plain(results["base_model"]) else "BASE_MODEL",
        "unusual": [name for name, used in unusual.items() if used],
    }


def _retention(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {**found, "rows": retention_rows(found)} if found else None


def _revoked(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {**found, "back": score_text(found, "back")} if found else None


def _limits(records: Sequence[EditRecord], results: dict[str, Any]) -> dict[str, str]:
    """What is known of the limits, in sentences."""
    before, after = results["before"], results["after"]
    probes, changed = after["n_probes"], sum(edit.target_true is not None for edit in records)
    counterfactual = "The edit list gives no old answers."
    if changed:
        of_all = edits_text(len(records))
        counterfactual = f"The edit list gives an old answer for {changed} of {of_all}, to be replaced."
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
