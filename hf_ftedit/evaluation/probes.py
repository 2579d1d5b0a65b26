"""Probes of edit records: each prompt with the targets that are scored after it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from hf_ftedit import models
from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, shown
from hf_ftedit.options import EditOptions
from hf_ftedit.scripts import separated


class ProbedTarget(NamedTuple):
    """One target of one probe: a row of the predictions."""

    edit_id: str
    kind: str  # "rewrite", "paraphrase", "neighborhood", "near_name" or "portability"
    prompt: str
    role: str  # "new" or "true", see `score`
    target: str
    aspect: str = ""  # of a portability probe, such as "reasoning"
    aliases: tuple[str, ...] = ()  # other names of the target, which count in a generated answer
    new_names: tuple[str, ...] = ()  # of the new target, which the answer to a neighborhood probe must not say

    @property
    def name(self) -> str:
        """The probe's name in an error."""
        return f"edit {shown(self.edit_id)}, {self.kind}{'' if self.kind == 'wording' else ' probe'}"


def probed_targets(records: Iterable[EditRecord]) -> Iterator[ProbedTarget]:
    """Every (probe, target) of `records`, each probe's expected targets first; one that an edit has twice once."""
    for record in records:
        yield from dict.fromkeys(_targets_of(record))


def _targets_of(record: EditRecord) -> Iterator[ProbedTarget]:
    edit_id, new, true = record.edit_id, record.target_new, record.target_true
    new_names = (new, *record.target_aliases)
    for kind, prompts in (("rewrite", (record.prompt,)), ("paraphrase", record.paraphrase_prompts)):
        for prompt in prompts:
            yield ProbedTarget(edit_id, kind, prompt, "new", new, aliases=record.target_aliases)
            if true is not None:
                yield ProbedTarget(edit_id, kind, prompt, "true", true)
    for neighbor in record.neighborhood_prompts:
        if neighbor.target is None:
            raise EditError(f"edit {edit_id!r}: the neighborhood probe {neighbor.prompt!r} has no target; give one")
        yield ProbedTarget(edit_id, "neighborhood", neighbor.prompt, "true", neighbor.target, new_names=new_names)
        # Probability is compared within a relation, as CounterFact does; zsRE's unrelated questions have no rival.
        if true is not None and (record.relation_id is not None or neighbor.target == true):
            yield ProbedTarget(edit_id, "neighborhood", neighbor.prompt, "new", new)
    for prompt in record.near_name_prompts:
        yield ProbedTarget(edit_id, "near_name", prompt, "new", new, aliases=record.target_aliases)
    for hop in record.portability_prompts:
        for answer in hop.answers:
            yield ProbedTarget(edit_id, "portability", hop.prompt, "new", answer, hop.aspect or "")


def open_prompts(records: Iterable[EditRecord]) -> list[str]:
    """Prompts of neighborhood probes without a target, sorted."""
    return sorted({probe.prompt for edit in records for probe in edit.neighborhood_prompts if probe.target is None})


def filled(record: EditRecord, targets: Mapping[str, str]) -> EditRecord:
    """The record with these targets of open neighborhood probes; one whose target is empty is dropped."""
    probes = [p._replace(target=targets[p.prompt]) if p.target is None else p for p in record.neighborhood_prompts]
    return replace(record, neighborhood_prompts=tuple(probe for probe in probes if probe.target))


def check_known(
    records: Iterable[EditRecord], tokenizer: PreTrainedTokenizerBase, config: Any, options: EditOptions
) -> None:
    """Check that a model with this configuration has all tokens of the edits and their probes, as `check_tokens`."""
    end = [("eos_token", tokenizer.eos_token or "")] if options.end_of_answer else []
    models.check_tokens(tokenizer, config, chain(end, _named_texts(records)), chat_template=options.chat_template)


def _named_texts(records: Iterable[EditRecord]) -> Iterator[tuple[str, str]]:
    """All texts of edits that a model may be run on, each with its edit and field."""
    prompts = ("paraphrase_prompts", "generation_prompts", "wordings", "near_name_prompts")
    for record in records:
        texts: dict[str, Iterable[str | None]] = {name: getattr(record, name) for name in prompts}
        texts |= {name: [getattr(record, name)] for name in ("prompt", "target_new", "target_true")}
        texts["neighborhood_prompts"] = [text for probe in record.neighborhood_prompts for text in probe[:2]]
        texts["portability_prompts"] = [text for hop in record.portability_prompts for text in (hop[0], *hop[1])]
        for name, values in texts.items():
            yield from ((f"edit {record.edit_id!r}: {name}", text) for text in values if text)


def check_lengths(
    records: Iterable[EditRecord], tokenizer: PreTrainedTokenizerBase, max_length: int | None, *, chat_template: bool
) -> None:
    """Raise [`~hf_ftedit.EditError`] where an edit, wording or probe has more than `max_length` tokens."""
    if max_length is None:
        return
    front = len(models.encode_prompts(tokenizer, ["a"], chat_template=chat_template)[0])
    # Stands for the model's own answer, which cannot be computed yet.
    answer = " ".join("a" * (models.WHOLE_ANSWER_TOKENS if chat_template else models.MAX_ANSWER_TOKENS))
    records = list(records)
    probes = probed_targets(filled(record, defaultdict(lambda: answer)) for record in records)
    wordings = (ProbedTarget(r.edit_id, "wording", text, "new", r.target_new) for r in records for text in r.wordings)
    rows = chain(probes, wordings)
    # A byte is at most one token, so that pairs of few bytes need not be tokenized.
    long = [row for row in rows if len(f"{row.prompt} {row.target}".encode()) + front > max_length]
    prompts, names = [row.prompt for row in long], [row.name for row in long]
    completions = [separated(row.prompt, row.target) for row in long]
    settings: dict[str, Any] = {"chat_template": chat_template, "max_length": max_length, "names": names}
    models.encode_pairs(tokenizer, prompts, completions, **settings)
