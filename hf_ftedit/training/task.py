"""An edit task: the edits, what is measured and the adapter to go on from, read and checked before torch is loaded."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, compress
from os import PathLike
from typing import Any

from hf_ftedit import data
from hf_ftedit.augmentation import with_made_probes
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError, shown
from hf_ftedit.evaluation import check_fluency
from hf_ftedit.hub import SavedEdits, open_edits
from hf_ftedit.models import public_name
from hf_ftedit.options import EditOptions
from hf_ftedit.text import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Continuation:
    """Continued training: the edits of an existing adapter plus new ones, minus revoked ones."""

    name: str  # safe to publish
    saved: SavedEdits
    edits: list[EditRecord]  # to train: the adapter's own first
    earlier: list[EditRecord]  # its own edits that stay
    revoked: list[EditRecord]  # but for those whose fact the new ones state
    is_anew: bool  # trained from the base model, as the adapter's weights hold edits that are taken back

    def still_measured(self, records: Iterable[EditRecord]) -> list[EditRecord]:
        """Those of `records` that are the adapter's own edits; by the fact, as other edits may have the same name."""
        own = set(map(data.statement_of, self.earlier))
        return [edit for edit in records if data.statement_of(edit) in own]


@dataclass(frozen=True)
class EditTask:
    """Everything that an [`~hf_ftedit.EditTrainer`] trains and measures, read and checked; see [`read_task`]."""

    edits: list[EditRecord]  # to train; empty where rows are trained
    measured: list[EditRecord]  # the trained edits, or those of `eval_dataset`
    facts: list[Fact] | None = None  # the locality pool
    rows: Any = None  # training rows that were passed instead of edits; a builder makes them of `edits`
    eval_rows: Any = None  # a dataset, or a dict of them, whose loss is evaluated
    sets: dict[str, list[EditRecord]] = field(default_factory=dict)  # that `evaluate` measures, by name
    texts: list[str] = field(default_factory=list)  # to measure perplexity on
    known: list[Fact] = field(default_factory=list)  # of which to count those that the model knows
    training_texts: list[str] = field(default_factory=list)  # plain text to train on, where it is not sampled
    continuation: Continuation | None = None
    given_in_python: list[str] = field(default_factory=list)  # objects, which no command line can repeat

    @property
    def revoked(self) -> list[EditRecord]:
        """Edits of the adapter to go on from that are taken back."""
        return self.continuation.revoked if self.continuation else []

    @property
    def held_out(self) -> list[EditRecord]:
        """Edits that are measured and not trained: no training row may hold a probe of theirs."""
        others = [] if self.measured is self.edits else self.measured
        return [*others, *chain(*self.sets.values())]

    def saved_records(self, measured: Sequence[EditRecord]) -> list[EditRecord]:
        """The records to save: trained edits, with the probes of `measured` where they are there too."""
        probed = {(record.prompt, record.target_new): record for record in measured}
        pairs = ((edit, probed.get((edit.prompt, edit.target_new), edit)) for edit in self.edits)
        return [replace(record, edit_id=edit.edit_id) for edit, record in pairs] or list(measured)


def read_task(
    options: EditOptions,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    locality_pool: str | Iterable[Fact] | None = None,
    *,
    adapter: SavedEdits | None = None,
) -> EditTask:
    """
    Read and check what is to be trained and measured, once; torch is not loaded.

    The datasets and the pool are those of [`~hf_ftedit.EditTrainer`]; `adapter` is the folder of `options.adapter`
    where it was opened already.
    """
    source: Any = options.edits if train_dataset is None else train_dataset
    # What can be neither is read as edits, which says what to give.
    has_edits = are_edits(source) or isinstance(source, int | float | bytes | dict)
    new = data.edits_of(options, source if has_edits else None)
    rows: Any = None if has_edits else source
    if isinstance(rows, Sequence) and not hasattr(rows, "column_names"):
        raise EditError("train_dataset is a list of rows: give datasets.Dataset.from_list of it, or edits")
    if rows is not None and options.erase:
        raise EditError("erase goes with edits: give edits (records, dicts, or a file), not training rows")
    # A builder is known by its records, for the same reason as a dataset by its columns.
    is_builder = hasattr(rows, "records")
    probed, sets, eval_rows = _read_evaluation(options, without_builders(eval_dataset))
    continuation = None
    if options.adapter is not None:
        if rows is not None:
            raise EditError("adapter goes on from edits: give edits (records, dicts, or a file), not training rows")
        continuation = _continuation(options, adapter or open_edits(options.adapter), new)
    elif hasattr(rows, "__len__") and not len(rows):
        raise EditError("train_dataset holds no rows; give at least one")
    elif rows is None and not new:
        raise EditError("there is nothing to train on; give edits or rows as train_dataset, or a file as edits")
    edits = continuation.edits if continuation else list(rows.records) if is_builder else new
    if options.chat_template and not is_builder:  # a builder's rows are made: they may hold any wording
        edits, probed = with_made_probes(edits), with_made_probes(probed)
        sets = {name: with_made_probes(part) for name, part in sets.items()}
    if options.measure_fluency:
        check_fluency(probed or edits)
    pool = options.locality_pool if locality_pool is None else locality_pool
    known = data.read_named("known_facts", data.read_facts, options.known_facts)
    # A name in the options can be given on a command line again; facts handed over as objects cannot.
    has_facts = not options.locality_pool and locality_pool is not None and not isinstance(locality_pool, str)
    in_python = {"train_dataset": rows is not None, "locality_pool": has_facts, "eval_dataset": probed or sets}
    return EditTask(
        edits=edits,
        measured=probed or edits,
        facts=None if pool is None else data.read_named("locality_pool", data.read_facts, pool),
        rows=rows,
        eval_rows=eval_rows,
        sets=sets,
        texts=data.read_named("perplexity_texts", data.read_texts, options.perplexity_texts),
        known=data.facts_about_others(known, [*edits, *probed]),
        training_texts=data.read_named("training_texts", data.read_texts, options.training_texts),
        continuation=continuation,
        given_in_python=[name for name, is_given in in_python.items() if is_given],
    )


def _read_evaluation(
    options: EditOptions, eval_dataset: Any
) -> tuple[list[EditRecord], dict[str, list[EditRecord]], Any]:
    """What `evaluate` measures: edits, or several sets of them by name, or rows, which are checked."""
    read_edits = partial(data.read_edits, format=options.format, skip_invalid=options.skip_invalid)
    read = partial(data.read_named, "eval_dataset", read_edits)
    if are_edits(eval_dataset) and (edits := read(eval_dataset)):
        return edits, {}, None
    parts = eval_dataset if isinstance(eval_dataset, dict) else {}
    if any(map(are_edits, parts.values())):
        if others := [name for name, part in parts.items() if not are_edits(part)]:
            raise EditError(
                f"eval_dataset {shown(others[0])} holds no edits, and other sets do: give one kind for all"
            )
        return [], {name: read(part) for name, part in parts.items()}, None
    if eval_dataset is not None:
        check_rows(eval_dataset)
    return [], {}, eval_dataset


def are_edits(source: Any) -> bool:
    """Tell edits (a path, a list, a dataset with an edit's columns) from training rows."""
    # A `Dataset` or a `DataFrame`, known by its columns: to import its class would load `datasets` before any check.
    names = getattr(source, "column_names", getattr(source, "columns", None))
    if names is None and hasattr(source, "column_names"):  # a stream, of which nothing is known before its first row
        names = next(iter(source), {})
    if names is not None:
        return data.are_edits(names)
    if isinstance(source, Sequence) and source and isinstance(source[0], Mapping) and "completion" in source[0]:
        return data.are_edits(source[0])
    return isinstance(source, (str, PathLike, Sequence))


def without_builders(source: Any) -> Any:
    """`source`, a dataset to evaluate or a dictionary of such, with the records of builders in their place."""
    if isinstance(source, dict):
        return {name: without_builders(part) for name, part in source.items()}
    return getattr(source, "records", source)


def check_rows(source: Any) -> None:
    """Raise where a dataset to evaluate is neither one of rows nor a dictionary of such."""
    parts = list(source.values() if isinstance(source, dict) else [source]) or [source]
    if wrong := [part for part in parts if not hasattr(part, "column_names")]:
        kind = type(wrong[0]).__name__
        raise EditError(
            f"eval_dataset is of type {kind}: give edits (a list, a file, a Dataset), or a Dataset of rows"
        )


def check_tokenized(rows: Any) -> None:
    """Raise for rows to evaluate that TRL would tokenize: beside rows that are tokenized it does not."""
    for part in rows.values() if isinstance(rows, dict) else [rows]:
        names = getattr(part, "column_names", None)
        if names and "input_ids" not in names:
            raise EditError(
                f"eval_dataset has the columns {', '.join(names)}: beside edits and prompt-completion rows give such, "
                "with prompt and completion as texts, or rows with input_ids and labels"
            )


def _continuation(options: EditOptions, saved: SavedEdits, new: Sequence[EditRecord]) -> Continuation:
    """The edits of `options.adapter` without those of `options.revoke` and with those of `new`."""
    name, revoke = options.adapter or "", set(options.revoke or ())
    if options.full_finetune:
        raise EditError(
            "adapter and full_finetune do not go together; hf-ftedit merge --merge_into_base gives a model"
        )
    if not saved.is_adapter:
        raise EditError(f"adapter {name!r} holds a whole model; edit it as any other, by its name")
    public = public_name(name)
    lora = () if revoke else ("lora_layers", "lora_embedding")  # without revoked edits a LoRA is made anew
    for setting in ("chat_template", "end_of_answer", *lora):
        then, now = (part.get(setting) or None for part in (saved.recipe, vars(options)))
        if then != now:
            raise EditError(
                f"adapter {public!r} was trained with {setting} {then!r}, and it is {now!r} now; set it so"
            )
    if not new and not revoke:
        raise EditError(f"adapter {public!r}: give edits to add, or revoke the names of some of its own")
    if unknown := revoke - {edit.edit_id for edit in saved.records}:
        some = ", ".join(shown(edit.edit_id) for edit in saved.records[:3])
        some += ", ..." if len(saved.records) > 3 else ""
        raise EditError(f"adapter {public!r} has no edit {shown(min(unknown))} to revoke; it has {some}")
    facts = _stated(new)
    gone = [edit for edit in saved.records if edit.edit_id in revoke]
    # The unedited model's answer is not to be restored where another one is to be learnt.
    revoked = [edit for edit in gone if facts.keys().isdisjoint(data.fact_keys(edit))]
    if len(revoked) < len(gone):
        replaced = counted(len(gone) - len(revoked), "revoked edit")
        logger.warning("new edits of the same fact replace %s", replaced)
    stay = _without_replaced([edit for edit in saved.records if edit.edit_id not in revoke], facts)
    edits = data.combine_edits([(public, stay), ("new", new)])
    if not edits:
        raise EditError(f"adapter {public!r}: all its edits are revoked; use the base model without it")
    return Continuation(public, saved, edits, stay, revoked, bool(gone))


def _stated(edits: Iterable[EditRecord]) -> dict[Any, set[str]]:
    """The targets of `edits` by fact."""
    targets: dict[Any, set[str]] = {}
    for edit in edits:
        for key in data.fact_keys(edit):
            targets.setdefault(key, set()).add(edit.target_new)
    return targets


def _without_replaced(earlier: list[EditRecord], stated: Mapping[Any, set[str]]) -> list[EditRecord]:
    """Earlier edits whose fact no new one gives another target; the others are named in the log."""
    stays = [
        all(edit.target_new in stated.get(key, {edit.target_new}) for key in data.fact_keys(edit)) for edit in earlier
    ]
    if replaced := [edit for edit, stay in zip(earlier, stays, strict=True) if not stay]:
        names = ", ".join(shown(edit.edit_id) for edit in replaced[:3])
        logger.warning("new edits of the same fact replace %s: %s", counted(len(replaced), "earlier edit"), names)
    return [*compress(earlier, stays)]
