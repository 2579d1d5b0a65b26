"""Model and probes to predictions: each distinct prompt and target asked once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_ftedit.generation import MAX_ANSWER_TOKENS, greedy_answers
from hf_ftedit.likelihood import score_pairs
from hf_ftedit.loading import load_config, load_model, load_tokenizer
from hf_ftedit.records import EditError, EditRecord
from hf_ftedit.tokenization import context_length, encode_pairs, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ProbedTarget(NamedTuple):
    """One target of one probe; `role` is `"new"` or `"true"`, see [`~hf_ftedit.scoring.score`]."""

    edit_id: str
    kind: str
    prompt: str
    role: str
    answer: str

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return f"edit {self.edit_id!r}, {self.kind} probe"


def probed_targets(records: Iterable[EditRecord]) -> Iterator[ProbedTarget]:
    """
    Every (probe, target) that a model must be asked about, each probe's expected target first.

    Raises:
        `ValueError`: a neighborhood probe has no target; see [`fill_neighborhood_targets`].
    """
    for record in records:
        edit_id, new, true = record.edit_id, record.target_new, record.target_true
        asked = [("rewrite", record.prompt), *(("paraphrase", prompt) for prompt in record.paraphrase_prompts)]
        for kind, prompt in asked:
            yield ProbedTarget(edit_id, kind, prompt, "new", new)
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
            yield ProbedTarget(edit_id, "portability", hop.prompt, "new", hop.answers[0])


def check_lengths(
    records: Iterable[EditRecord],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    *,
    chat_template: bool = False,
) -> None:
    """
    Raise [`~hf_ftedit.records.EditError`] where an edit or a probe does not fit into `max_length` tokens.

    It needs the tokenizer only, so that a run fails before its model is loaded. A byte is at most one token: pairs of
    few bytes are passed over.
    """
    if max_length is None:
        return
    front = len(encode_prompts(tokenizer, ["a"], chat_template=chat_template)[0])
    answer = " ".join("a" * MAX_ANSWER_TOKENS)  # stands for the model's own, which is not known yet
    asked = probed_targets(_filled(record, defaultdict(lambda: answer)) for record in records)
    long = [row for row in asked if len(f"{row.prompt} {row.answer}".encode()) + front > max_length]
    encode_pairs(
        tokenizer,
        [row.prompt for row in long],
        [f" {row.answer}" for row in long],
        chat_template=chat_template,
        max_length=max_length,
        names=[row.name for row in long],
    )


def load_checked(
    name: str | None,
    records: Iterable[EditRecord],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    chat_template: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Model and tokenizer of `name`; the edits are checked to fit into its context before its weights are read.

    Args:
        name (`str`, *optional*):
            Hub id or folder; the embedded model without one.
        records (`Iterable[EditRecord]`):
            Edits that it will be asked about.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Another tokenizer than the model's own.
        chat_template (`bool`, *optional*, defaults to `False`):
            Whether it will be asked through the chat template.
        revision (`str`, *optional*):
            Branch, tag or commit.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the repository brings.
        kwargs:
            Passed to [`~hf_ftedit.loading.load_model`].

    Raises:
        [`~hf_ftedit.records.EditError`]: there is no such model, or an edit does not fit.
    """
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = tokenizer or load_tokenizer(name, **source)
    check_lengths(records, tokenizer, context_length(load_config(name, **source)), chat_template=chat_template)
    return load_model(name, **source, **kwargs), tokenizer


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 4096,
    desc: str = "Evaluating",
) -> dict[str, list[Any]]:
    """
    Predictions of `model` for all probes of `records`: all that [`~hf_ftedit.scoring.score`] needs.

    Each distinct (prompt, target) is computed once, however many probes share it.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records whose neighborhood probes have targets, see [`fill_neighborhood_targets`].
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `4096`):
            Tokens of a batch, padding included.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `probe`, `target`, `answer`, `logprob`, `match`,
        `token_accuracy`, one row per (probe, target).
    """
    asked = list(dict.fromkeys(probed_targets(records)))
    if not asked:
        raise EditError("there are no edits to measure")
    distinct: dict[tuple[str, str], int] = {}
    index = np.array([distinct.setdefault((row.prompt, row.answer), len(distinct)) for row in asked], dtype=int)
    owners = {(row.prompt, row.answer): row.name for row in reversed(asked)}
    scores = score_pairs(
        model,
        tokenizer,
        [prompt for prompt, _ in distinct],
        [answer for _, answer in distinct],
        chat_template=chat_template,
        tokens_per_batch=tokens_per_batch,
        names=[owners[pair] for pair in distinct],
        desc=desc,
    )
    edit_ids, kinds, prompts, roles, answers = (list(column) for column in zip(*asked, strict=True))
    return {
        "edit_id": edit_ids,
        "kind": kinds,
        "probe": prompts,
        "target": roles,
        "answer": answers,
        "logprob": scores.logprob[index].tolist(),
        "match": scores.match[index].tolist(),
        "token_accuracy": scores.token_accuracy[index].tolist(),
    }


def fill_neighborhood_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
) -> list[EditRecord]:
    """
    Records whose neighborhood probes all have targets: where the data gives none, the unedited model's own answer.

    Args:
        model (`PreTrainedModel`):
            The unedited model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records as they were read.
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
    """
    open_prompts = {p.prompt for record in records for p in record.neighborhood_prompts if p.target is None}
    if not open_prompts:
        return list(records)
    prompts = sorted(open_prompts)
    answers = greedy_answers(model, tokenizer, prompts, chat_template=chat_template, desc="Answering locality probes")
    known = dict(zip(prompts, answers, strict=True))
    return [_filled(record, known) for record in records]


def _filled(record: EditRecord, answers: Mapping[str, str]) -> EditRecord:
    """The record with known answers put in; a probe to which the model says nothing is dropped by its empty answer."""
    probes = (
        probe if probe.target is not None else probe._replace(target=answers[probe.prompt])
        for probe in record.neighborhood_prompts
    )
    return replace(record, neighborhood_prompts=tuple(probe for probe in probes if probe.target))
