"""The YAML metadata in front of a card, written and read, and which of its names are names on the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from hf_ftedit.evaluation import SCORES, counts, edits_text
from hf_ftedit.models import EMBEDDED_NAME

TAGS = ["model-editing", "knowledge-editing", "hf-ftedit", "lora"]
# What a command line or an address may hold as it is: a name on the Hub, of a folder, of an edit.
PLAIN = re.compile(r"\w[\w.:-]{0,95}(/[\w.:-]{1,96})?", re.ASCII)


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


def front_matter(metadata: Mapping[str, Any]) -> str:
    """Metadata as the text in front of a card."""
    return f"---\n{yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)}---"


def model_metadata(results: Mapping[str, Any], provenance: Mapping[str, Any], adapter: bool) -> dict[str, Any]:
    """
    The metadata of an edited model: base model, library, data sets, tags and scores.

    Args:
        results (`Mapping`):
            What `eval_results.json` holds.
        provenance (`Mapping`):
            What `edit_config.yaml` holds under `provenance`.
        adapter (`bool`):
            Whether the folder holds an adapter rather than a whole model.
    """
    base, metadata = results["base_model"], dict[str, Any]()
    tags = TAGS if adapter else [tag for tag in TAGS if tag != "lora"]
    if is_on_hub(results):
        relation = "adapter" if adapter else "finetune"
        metadata |= {"base_model": base, "base_model_relation": relation}
        tags = [*tags, f"base_model:{relation}:{base}"]
    metadata["library_name"] = "peft" if adapter else "transformers"
    if datasets := datasets_of(provenance):
        metadata["datasets"] = datasets
    metadata |= {"pipeline_tag": "text-generation", "tags": tags}
    name = (provenance.get("repo_id") or "edited model").rpartition("/")[2]
    return {**metadata, "model-index": [{"name": name, "results": [_scores(results)]}]}


def datasets_of(provenance: Mapping[str, Any]) -> list[str]:
    """Datasets of the Hub that edits and facts came from, without the split."""
    names = (name.partition(":")[0] for name in provenance.get("datasets") or ())
    return list(dict.fromkeys(name for name in names if has_namespace(name)))


def is_on_hub(results: Mapping[str, Any]) -> bool:
    """Whether the base model is one of the Hub: it has a namespace, or was loaded at a commit."""
    base = results["base_model"]
    if base == EMBEDDED_NAME:
        return False
    return has_namespace(base) or bool(is_plain(base) and results.get("base_model_revision"))


def has_namespace(name: str) -> bool:
    """Whether `name` is one of a namespace of the Hub, such as `"user/name"`."""
    return "/" in name and is_plain(name)


def is_plain(name: str) -> bool:
    """Whether `name` may stand in a command line or an address as it is."""
    return bool(PLAIN.fullmatch(name))


def _scores(results: Mapping[str, Any]) -> dict[str, Any]:
    """The scores, as one result of a `model-index`."""
    after = results["after"]
    return {
        "task": {"type": "text-generation", "name": "Model editing"},
        "dataset": {"type": "edits", "name": f"edits.jsonl ({edits_text(results['n_edits'])})"},
        "metrics": [
            {"type": name, "name": label, "value": round(after[name], 2), "args": _sizes(after, name)}
            for name, label in SCORES.items()
            if after.get(name) is not None
        ],
    }


def _sizes(scores: Mapping[str, Any], name: str) -> dict[str, int]:
    edits, probes = counts(scores, name)
    return {"n_texts": probes} if edits is None else {"n_edits": edits, "n_probes": probes}
