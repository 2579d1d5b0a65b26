"""Model cards: plain data to Markdown text with YAML metadata, nothing read and nothing written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation import (
    SCORES,
    Table,
    answers_table,
    counts,
    diagnose,
    edits_text,
    parts_table,
    portability_table,
    protocol_text,
    retention_table,
    rounded,
    score_text,
    scores_table,
)
from hf_ftedit.hub.markdown import SHOWN_IN_BLOCK, code_block, code_span, literal, markdown_text
from hf_ftedit.models import EMBEDDED_NAME

TAGS = ["model-editing", "knowledge-editing", "hf-ftedit"]
SHOWN_EDITS = 20
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that `vllm serve --max-lora-rank` accepts
ARGS = {"perplexity": "n_texts", "drift": "n_prompts"}  # names of what scores are counted by, else probes
UNUSUAL = {  # settings of adapters that serving engines may refuse
    "lora_embedding": "a LoRA on the token embedding",
    "use_dora": "DoRA",
    "lora_modules_to_save": "whole layers saved with it",
    "lora_target_parameters": "LoRA on single parameters",
}
# Names that may stand in a command line or an address as they are: on the Hub, of a folder, of an edit.
PLAIN = re.compile(r"\w[\w.:-]{0,95}(/[\w.:-]{1,96})?", re.ASCII)


def model_card(
    records: Sequence[EditRecord],
    results: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
    *,
    adapter: bool = True,  # False for a whole model
) -> str:
    """Write the card of an edited model from the contents of its `eval_results.json` and `edit_config.yaml`."""
    return rendered("model_card.md", card=Card(records, results, recipe, provenance or {}, adapter))


@dataclass(frozen=True)
class Card:
    """All that `templates/model_card.md` reads: the data of a folder, and texts made of them."""

    edits: Sequence[EditRecord]
    results: Mapping[str, Any]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    is_adapter: bool
    embedded, most_rank = EMBEDDED_NAME, VLLM_RANKS[-1]

    @property
    def metadata(self) -> str:
        """The YAML in front of the card."""
        kind, tags = ("adapter", [*TAGS, "lora"]) if self.is_adapter else ("finetune", TAGS)
        base: dict[str, Any] = {}
        if self.is_on_hub:
            base = {"base_model": self.base_model, "base_model_relation": kind}
        # The Hub's own class: how scores stand in a card is its business, and changes.
        return ModelCardData(
            **base,
            datasets=self.datasets or None,
            library_name="peft" if self.is_adapter else "transformers",
            pipeline_tag="text-generation",
            tags=[*tags, f"base_model:{kind}:{self.base_model}"] if base else tags,
            model_name=(self.provenance.get("repo_id") or "edited model").rpartition("/")[2],
            eval_results=self._eval_results(),
        ).to_yaml()

    def _eval_results(self) -> list[EvalResult]:
        after = self.results["after"]
        sizes = {name: counts(after, name) for name in SCORES if after.get(name) is not None}
        return [
            EvalResult(
                task_type="text-generation",
                task_name="Model editing",
                dataset_type="edits",
                dataset_name=f"edits.jsonl ({edits_text(self.results['n_edits'])})",
                metric_type=name,
                metric_name=SCORES[name],
                metric_value=rounded(name, after[name]),
                metric_args={**({} if edits is None else {"n_edits": edits}), ARGS.get(name, "n_probes"): probes},
            )
            for name, (edits, probes) in sizes.items()
        ]

    @property
    def base_model(self) -> str:
        """Hub id of the base model, or the name of its folder."""
        return self.results["base_model"]

    @property
    def is_on_hub(self) -> bool:
        """`True` where the base model is one of the Hub: it has a namespace, or was loaded at a commit."""
        if self.base_model == EMBEDDED_NAME:
            return False
        # A folder has no commit, so that a name like "gpt2" with one is of the Hub.
        has_commit = bool(self.results.get("base_model_revision"))
        return has_namespace(self.base_model) or (has_commit and is_plain(self.base_model))

    @property
    def datasets(self) -> list[str]:
        """Datasets of the Hub that edits and facts came from, without the split."""
        names = (name.partition(":")[0] for name in self.provenance.get("datasets") or ())
        return list(dict.fromkeys(name for name in names if has_namespace(name)))

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        before, after = self.results["before"], self.results["after"]
        name = "efficacy" if after.get("edit_score") is None else "edit_score"
        if after.get(name) is None:
            return "How well the edits hold was not measured."
        _, probes = counts(after, name)
        was = "—" if before.get(name) is None else f"{before[name]:.1f}"
        return f"{SCORES[name].capitalize()} on {probes} probes: {after[name]:.1f} of 100; before the edits: {was}."

    @property
    def shown(self) -> list[tuple[str, str, str]]:
        """The first edits: prompt, answer before, answer after."""
        edits = self.edits[:SHOWN_EDITS]
        # The model's own words where there are some: targets are what was wanted.
        if answers := self.results.get("answers"):
            pairs = zip(edits, answers, strict=False)
            return [(edit.prompt, answer["before"], answer["after"]) for edit, answer in pairs]
        return [(edit.prompt, edit.target_true or "—", edit.target_new) for edit in edits]

    @property
    def example(self) -> dict[str, Any]:
        """A prompt, and what the model printed after it; of a long prompt its beginning alone."""
        example = self.results.get("example") or {"prompt": self.edits[0].prompt, "output": None}
        is_cut = len(example["prompt"]) > SHOWN_IN_BLOCK
        cut = {"prompt": example["prompt"][:SHOWN_IN_BLOCK], "output": None}
        return {"text": None, **(cut if is_cut else example), "is_cut": is_cut}

    @property
    def edit_id(self) -> str:
        """An edit to revoke in the example of the command."""
        # Others would need quoting, differently in each shell.
        return next((edit.edit_id for edit in self.edits if is_plain(edit.edit_id)), "EDIT_ID")

    @property
    def bits(self) -> str:
        """Settings of bitsandbytes with which the edits were measured, as Python."""
        names = [name for name in ("load_in_4bit", "load_in_8bit") if self.settings.get(name)]
        if names and self.settings.get("bnb_4bit_quant_type"):
            names.append("bnb_4bit_quant_type")
        values = ((name, self.settings[name]) for name in names)
        return ", ".join(f"{name}={literal(value) if isinstance(value, str) else value}" for name, value in values)

    @property
    def needed(self) -> list[str]:
        """Files and folders that the recipe needs beside it, as Markdown."""
        # A recipe names files without their folders: it tells nothing of the machine that wrote it.
        names = {
            "the base model": None if self.is_on_hub or self.base_model == EMBEDDED_NAME else self.base_model,
            "the adapter": self.settings.get("adapter"),
            "the locality pool": self.settings.get("locality_pool"),
        }
        return [f"{kind} {code_span(name)}" for kind, name in names.items() if name and not has_namespace(name)]

    @property
    def rank(self) -> int:
        """Rank of the adapter; of a merged one, the sum of its parts'."""
        return self.provenance.get("rank") or self.settings.get("lora_r", 0)

    @property
    def vllm_rank(self) -> int | None:
        """The smallest rank that vLLM accepts for it."""
        return next((rank for rank in VLLM_RANKS if rank >= self.rank), None)

    @property
    def served(self) -> str:
        """The base model in the command that serves it."""
        return self.base_model if is_plain(self.base_model) else "BASE_MODEL"

    @property
    def unusual(self) -> list[str]:
        """Parts of the adapter that serving engines may refuse."""
        return [label for name, label in UNUSUAL.items() if self.settings.get(name)]

    @property
    def changed(self) -> str:
        """The settings that are not the defaults, as YAML."""
        names = self.provenance.get("changed", self.settings)
        return yaml_text({name: self.settings[name] for name in names if name in self.settings})

    @property
    def counterfactual(self) -> str:
        """Sentence on the old answers."""
        number = sum(edit.target_true is not None for edit in self.edits)
        if not number:
            return "The edit list gives no old answers."
        return f"The edit list gives an old answer for {number} of {edits_text(len(self.edits))}, to be replaced."

    @property
    def abilities(self) -> str:
        """Sentences on drift and perplexity."""
        before, after = self.results["before"], self.results["after"]
        sentences = []
        if after.get("drift") is not None:
            answers = f"its own answers to {after['n_drift_prompts']} unrelated prompts"
            sentences.append(f"On {answers} the model moved by {after['drift']:.3f} nats a token (KL divergence)")
        if before.get("perplexity") is not None and after.get("perplexity") is not None:
            change = f"from {before['perplexity']:.2f} to {after['perplexity']:.2f}"
            sentences.append(f"Perplexity on {after['n_texts']} texts went {change}")
        if not sentences:
            return "They were not measured here."
        return f"{'. '.join(sentences)}; nothing else was measured."

    def limit(self, name: str, kind: str, subject: str) -> str:
        """Sentence on the score `name`, measured on probes of `kind` about a `subject`."""
        before, after = self.results["before"].get(name), self.results["after"].get(name)
        if after is None:
            return f"{subject.capitalize()} were not measured here."
        probes = f"{self.results['after']['n_probes'][kind]} probed {subject}"
        was = "" if before is None else f" (before the edits: {before:.1f})"
        return f"On {probes} {name} is {after:.1f} percent{was}."

    @property
    def protocol(self) -> str:
        """The protocol of the headline scores."""
        return protocol_text(self.results)

    @property
    def diagnosis(self) -> list[str]:
        """Sentences on the scores, see [`~hf_ftedit.diagnose`]."""
        return diagnose(self.results, self.settings)

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by name; without rows where nothing was measured."""
        nothing: Mapping[str, Any] = {"before": {}, "after": {}}
        return {
            "scores": scores_table(self.results),
            "answers": answers_table(self.results),
            "aspects": portability_table(self.results),
            "parts": parts_table(self.provenance.get("parts") or ()),
            "retention": retention_table(self.results.get("retention") or nothing),
        }


def is_plain(name: str) -> bool:
    """Tell a name that may stand in a command line or an address as it is."""
    return bool(PLAIN.fullmatch(name))


def has_namespace(name: str) -> bool:
    """Tell a name on the Hub with its owner, such as `"user/name"`."""
    return "/" in name and is_plain(name)


def yaml_text(settings: Mapping[str, Any]) -> str:
    """Settings as YAML, in their order."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).rstrip() if settings else ""


def rendered(template: str, **values: Any) -> str:
    """A template of the package with these values; names that it reads in vain are errors."""
    return _environment().get_template(template).render(**values).rstrip() + "\n"


@cache  # each template is compiled once
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("hf_ftedit")  # its folder `templates`
    # Not `autoescape`: it is for HTML. Each text of an edit passes one of the filters below instead.
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"text": markdown_text, "code": code_span, "block": code_block, "literal": literal}
    environment.filters |= {"score": score_text, "table": lambda table: table.markdown(markdown_text)}
    return environment
