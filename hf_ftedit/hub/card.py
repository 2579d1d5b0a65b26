"""Model cards: plain data to Markdown text with YAML metadata, nothing read and nothing written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from hf_ftedit import evaluation
from hf_ftedit.data import EditRecord
from hf_ftedit.hub.markdown import SHOWN_IN_BLOCK, code_block, code_span, literal, markdown_text
from hf_ftedit.models import EMBEDDED_NAME
from hf_ftedit.options import PROVENANCE
from hf_ftedit.text import counted

TAGS = ["model-editing", "knowledge-editing", "hf-ftedit"]
SHOWN_EDITS = 20
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that `vllm serve --max-lora-rank` accepts
# Names of what scores are counted by, else probes.
ARGS = {"perplexity": "n_texts", "drift": "n_prompts", "known_facts": "n_facts"}
NEEDED = ("adapter", "locality_pool", "training_texts", "perplexity_texts", "known_facts")  # settings that name files
UNUSUAL = {  # settings of adapters that serving engines may refuse
    "lora_embedding": "a LoRA on the token embedding",
    "use_dora": "DoRA",
    "lora_modules_to_save": "whole layers saved with it",
    "lora_target_parameters": "LoRA on single parameters",
}
# Names that may stand in a command line or an address as they are: on the Hub, of a folder, of an edit.
PLAIN = re.compile(r"\w[\w.:-]{0,95}(/[\w.:-]{1,96})?", re.ASCII)

# Not `autoescape`: it is for HTML. Each text of an edit passes one of the filters below instead.
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("hf_ftedit"), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
_TEMPLATES.filters |= {"text": markdown_text, "code": code_span, "block": code_block, "literal": literal}
_TEMPLATES.filters["counted"] = counted
_TEMPLATES.globals["project"] = "https://github.com/hf-ftedit/hf-ftedit"
_TEMPLATES.filters |= {"score": evaluation.score_text, "table": lambda table: table.markdown(markdown_text)}


def model_card(
    records: Sequence[EditRecord],
    results: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
    *,
    adapter: bool = True,  # False for a whole model
) -> str:
    """Write the card of an edited model from the contents of its `eval_results.json` and `edit_config.yaml`."""
    provenance, base_model = provenance or {}, results["base_model"]
    # A folder has no commit, so that a name like "gpt2" with one is of the Hub.
    has_commit = results.get("base_model_revision") and PLAIN.fullmatch(base_model)
    is_embedded = base_model == EMBEDDED_NAME
    is_on_hub = not is_embedded and bool(has_commit or has_namespace(base_model))
    rank = provenance.get("rank") or recipe.get("lora_r", 0)
    changed = [name for name in provenance.get("changed", recipe) if name in recipe]
    return rendered(
        "model_card.md",
        metadata=_metadata(results, recipe, provenance, adapter, is_on_hub),
        edits=records,
        results=results,
        settings=recipe,
        provenance=provenance,
        is_adapter=adapter,
        is_on_hub=is_on_hub,
        is_embedded=is_embedded,
        datasets=_datasets(provenance),
        headline=_headline(results["before"], results["after"]),
        shown=_shown(records[:SHOWN_EDITS], results.get("answers")),
        example=_example(results.get("example") or {"prompt": records[0].prompt, "output": None}),
        # Others would need quoting, differently in each shell.
        edit_id=next((edit.edit_id for edit in records if PLAIN.fullmatch(edit.edit_id)), "EDIT_ID"),
        served=base_model if PLAIN.fullmatch(base_model) else "BASE_MODEL",
        bits=_bits(recipe),
        needed=_needed(recipe, None if is_on_hub or is_embedded else base_model),
        rank=rank,  # of a merged adapter, the sum of its parts'
        vllm_rank=next((each for each in VLLM_RANKS if each >= rank), None),
        most_rank=VLLM_RANKS[-1],
        unusual=[label for name, label in UNUSUAL.items() if recipe.get(name)],
        changed=yaml_text({name: recipe[name] for name in changed}),
        n_counterfactual=sum(edit.target_true is not None for edit in records),
        abilities=_abilities(results["before"], results["after"]),
        protocol=evaluation.protocol_text(results),
        diagnosis=evaluation.diagnose(results, {**recipe, PROVENANCE: provenance}),
        tables={
            "scores": evaluation.scores_table(results),
            "answers": evaluation.answers_table(results),
            "aspects": evaluation.portability_table(results),
            "parts": evaluation.parts_table(provenance.get("parts") or ()),
            "retention": evaluation.retention_table(results.get("retention") or {"before": {}, "after": {}}),
        },
    )


def _datasets(provenance: Mapping[str, Any]) -> list[str]:
    """Ids of the Hub's datasets that the rows were taken from, without their splits."""
    names = (name.partition(":")[0] for name in provenance.get("datasets") or ())
    return list(dict.fromkeys(filter(has_namespace, names)))


def edits_dataset(recipe: Mapping[str, Any], provenance: Mapping[str, Any]) -> str | None:
    """The Hub's dataset that the edits were taken from; `None` where they come from a file."""
    names = list(provenance.get("datasets") or ())
    for other in (recipe.get("locality_pool"), recipe.get("training_texts")):
        if other in names:
            names.remove(other)  # once: the edits may be of the same one
    return next(iter(_datasets({"datasets": names})), None)


def _metadata(
    results: Mapping[str, Any], recipe: Mapping[str, Any], provenance: Mapping[str, Any], adapter: bool, on_hub: bool
) -> str:
    """The YAML in front of the card."""
    kind, tags = ("adapter", [*TAGS, "lora"]) if adapter else ("finetune", TAGS)
    base: dict[str, Any] = {}
    if on_hub:
        base = {"base_model": results["base_model"], "base_model_relation": kind}
        tags = [*tags, f"base_model:{kind}:{results['base_model']}"]
    # The Hub's own class: how scores stand in a card is its business, and changes.
    return ModelCardData(
        **base,
        datasets=_datasets(provenance) or None,
        metrics=[*published_scores(results["after"])] or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=tags,
        model_name=(provenance.get("repo_id") or "edited model").rpartition("/")[2],
        eval_results=list(_eval_results(results["after"], results["n_edits"], edits_dataset(recipe, provenance))),
    ).to_yaml()


def _eval_results(after: Mapping[str, Any], n_edits: int, dataset: str | None) -> Iterator[EvalResult]:
    for name, value in published_scores(after).items():
        edits, probes = evaluation.counts(after, name)
        yield EvalResult(
            task_type="text-generation",
            task_name="Model editing",
            dataset_type=dataset or "edits",
            dataset_name=f"{dataset or 'edits.jsonl'} ({counted(n_edits, 'edit')})",
            metric_type=name,
            metric_name=evaluation.SCORES[name],
            metric_value=value,
            metric_args={**({} if edits is None else {"n_edits": edits}), ARGS.get(name, "n_probes"): probes},
        )


def published_scores(after: Mapping[str, Any]) -> dict[str, float]:
    """The scores that were measured, rounded as cards and leaderboards have them."""
    scores = {name: after[name] for name in evaluation.SCORES if after.get(name) is not None}
    return {name: round(value, 4 if name == "drift" else 2) for name, value in scores.items()}


def leaderboard_entries(
    dataset: str, results: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The scores as the Hub's `.eval_results/*.yaml` has them: a task of the edits' dataset each."""
    after, page = results["after"], provenance.get("repo_id")
    source = {"source_url": f"https://huggingface.co/{page}", "source_name": "Model card"} if page else {}
    about = {"notes": f"{counted(results['n_edits'], 'edit')}, {after['protocol']} protocol", **source}
    scores = published_scores(after).items()
    return eval_result_entries_to_yaml([EvalResultEntry(dataset, *score, **about) for score in scores])


def _headline(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    name = "efficacy" if after.get("edit_score") is None else "edit_score"
    if after.get(name) is None:
        return "How well the edits hold was not measured."
    was = "—" if before.get(name) is None else f"{before[name]:.1f}"
    label, (_, probes) = evaluation.SCORES[name].capitalize(), evaluation.counts(after, name)
    return f"{label} on {counted(probes, 'probe')}: {after[name]:.1f} of 100; before the edits: {was}."


def _shown(edits: Sequence[EditRecord], answers: Sequence[Mapping[str, str]] | None) -> list[tuple[str, str, str]]:
    """The first edits: prompt, answer before, answer after."""
    # The model's own words where there are some: targets are what was wanted.
    if answers:
        return [(edit.prompt, said["before"], said["after"]) for edit, said in zip(edits, answers, strict=False)]
    return [(edit.prompt, edit.target_true or "—", edit.target_new) for edit in edits]


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt, and what the model printed after it; of a long prompt its beginning alone."""
    if len(example["prompt"]) > SHOWN_IN_BLOCK:
        return {"prompt": example["prompt"][:SHOWN_IN_BLOCK], "output": None, "text": None, "is_cut": True}
    return {"text": None, **example, "is_cut": False}


def _bits(settings: Mapping[str, Any]) -> str:
    """Settings of bitsandbytes with which the edits were measured, as Python."""
    bits = [f"{name}=True" for name in ("load_in_4bit", "load_in_8bit") if settings.get(name)]
    if bits and (kind := settings.get("bnb_4bit_quant_type")):
        bits.append(f"bnb_4bit_quant_type={literal(kind)}")
    return ", ".join(bits)


def _needed(settings: Mapping[str, Any], base_folder: str | None) -> list[str]:
    """Files and folders that the recipe needs beside it, as Markdown."""
    # A recipe names files without their folders: it tells nothing of the machine that wrote it.
    names = {"base_model": base_folder} | {name: settings.get(name) for name in NEEDED}
    if (rewriter := settings.get("rewriter") or "").endswith(".gguf"):  # another one may be a short name on the Hub
        names["rewriter"] = rewriter
    # A dataset of the Hub may have its split behind it.
    missing = {kind: name for kind, name in names.items() if name and not has_namespace(name.partition(":")[0])}
    return [f"the {kind.replace('_', ' ')} {code_span(name)}" for kind, name in missing.items()]


def _abilities(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Sentences on drift, perplexity and known facts."""
    sentences = []
    if after.get("drift") is not None:
        answers = f"its own answers to {counted(after['n_drift_prompts'], 'unrelated prompt')}"
        sentences.append(f"On {answers} the model moved by {after['drift']:.3f} nats a token (KL divergence)")
    if before.get("perplexity") is not None and after.get("perplexity") is not None:
        change = f"from {before['perplexity']:.2f} to {after['perplexity']:.2f}"
        sentences.append(f"Perplexity on {counted(after['n_texts'], 'text')} went {change}")
    if before.get("known_facts") is not None and after.get("known_facts") is not None:
        change = f"{before['known_facts']:.1f} percent, and with the edits {after['known_facts']:.1f}"
        sentences.append(f"Of {counted(after['n_known_facts'], 'fact')} about other subjects it knew {change}")
    return f"{'. '.join(sentences)}; nothing else was measured." if sentences else "They were not measured here."


def has_namespace(name: str) -> bool:
    """Tell a name on the Hub with its owner, such as `"user/name"`."""
    return "/" in name and bool(PLAIN.fullmatch(name))


def yaml_text(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Settings, or a list, as YAML in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip() if content else ""


def rendered(template: str, **values: Any) -> str:
    """A template of the package with these values; names that it reads in vain are errors."""
    return _TEMPLATES.get_template(template).render(**values).rstrip() + "\n"
