"""Records to what a model is asked: each probe with the targets that are scored after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from hf_ftedit.data import EditRecord
from hf_ftedit.models import MAX_ANSWER_TOKENS, encode_pairs, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ProbedTarget(NamedTuple):
    """
    One target of one probe.

    Args:
        edit_id (`str`):
            The edit that is probed.
        kind (`str`):
            `"rewrite"`, `"paraphrase"`, `"neighborhood"` or `"portability"`.
        prompt (`str`):
            What the model is asked.
        role (`str`):
            `"new"` or `"true"`, see [`~hf_ftedit.score`].
        target (`str`):
            Its text.
        aspect (`str`, *optional*):
            Of a portability probe, such as `"reasoning"`.
        aliases (`tuple[str, ...]`, *optional*, defaults to `()`):
            Other names of the target, which count in a generated answer.
    """

    edit_id: str
    kind: str
    prompt: str
    role: str
    target: str
    aspect: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return f"edit {self.edit_id!r}, {self.kind} probe"


def probed_targets(records: Iterable[EditRecord]) -> Iterator[ProbedTarget]:
    """
    Every (probe, target) that a model must be asked about, each probe's expected targets first.

    Raises:
        `ValueError`: a neighborhood probe has no target; see [`filled`].
    """
    for record in records:
        edit_id, new, true = record.edit_id, record.target_new, record.target_true
        asked = [("rewrite", record.prompt), *(("paraphrase", prompt) for prompt in record.paraphrase_prompts)]
        for kind, prompt in asked:
            yield ProbedTarget(edit_id, kind, prompt, "new", new, aliases=record.target_aliases)
            if true is not None:
                yield ProbedTarget(edit_id, kind, prompt, "true", true)
        for neighbor in record.neighborhood_prompts:
            if neighbor.target is None:
                raise ValueError(f"edit {edit_id!r}: the neighborhood probe {neighbor.prompt!r} has no target")
            yield ProbedTarget(edit_id, "neighborhood", neighbor.prompt, "true", neighbor.target)
            # Probability is compared within a relation, as CounterFact does; zsRE's unrelated questions have no rival.
            if true is not None and (record.relation_id is not None or neighbor.target == true):
                yield ProbedTarget(edit_id, "neighborhood", neighbor.prompt, "new", new)
        for hop in record.portability_prompts:
            for answer in hop.answers:
                yield ProbedTarget(edit_id, "portability", hop.prompt, "new", answer, hop.aspect)


class ProbedTargets:
    """
    What is asked about `records`, as columns; a target that a record asks for twice stands once.

    Args:
        records (`Iterable[EditRecord]`):
            Records whose neighborhood probes have targets.
    """

    def __init__(self, records: Iterable[EditRecord]) -> None:
        self.columns: dict[str, list[str]] = {
            name: [] for name in ("edit_id", "kind", "aspect", "probe", "role", "target")
        }
        self.aliases: list[tuple[str, ...]] = []
        edit_ids, kinds, aspects, probes, roles, targets = self.columns.values()
        for record in records:
            for row in dict.fromkeys(probed_targets([record])):
                edit_ids.append(row.edit_id)
                kinds.append(row.kind)
                aspects.append(row.aspect or "")
                probes.append(row.prompt)
                roles.append(row.role)
                targets.append(row.target)
                self.aliases.append(row.aliases)

    def name(self, position: int) -> str:
        """What to call a row in an error."""
        return f"edit {self.columns['edit_id'][position]!r}, {self.columns['kind'][position]} probe"


def check_lengths(
    records: Iterable[EditRecord],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    *,
    chat_template: bool = False,
) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where an edit or a probe does not fit into `max_length` tokens.

    It needs the tokenizer only, so that a run fails before its model is loaded. A byte is at most one token: pairs of
    few bytes are passed over.
    """
    if max_length is None:
        return
    front = len(encode_prompts(tokenizer, ["a"], chat_template=chat_template)[0])
    answer = " ".join("a" * MAX_ANSWER_TOKENS)  # stands for the model's own, which is not known yet
    asked = probed_targets(filled(record, defaultdict(lambda: answer)) for record in records)
    long = [row for row in asked if len(f"{row.prompt} {row.target}".encode()) + front > max_length]
    encode_pairs(
        tokenizer,
        [row.prompt for row in long],
        [f" {row.target}" for row in long],
        chat_template=chat_template,
        max_length=max_length,
        names=[row.name for row in long],
    )


def filled(record: EditRecord, answers: Mapping[str, str]) -> EditRecord:
    """The record with known answers put in; a probe to which the model says nothing is dropped by its empty answer."""
    probes = (
        probe if probe.target is not None else probe._replace(target=answers[probe.prompt])
        for probe in record.neighborhood_prompts
    )
    return replace(record, neighborhood_prompts=tuple(probe for probe in probes if probe.target))
