"""Any known source to edit records and pool facts: recognised, checked, duplicates merged, conflicts refused."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

from hf_ftedit.data.fields import Fields, is_blank, kind
from hf_ftedit.data.formats import FORMATS, recognise, to_native
from hf_ftedit.data.records import EditRecord, Fact, NeighborhoodPrompt
from hf_ftedit.data.sources import Source, read_rows
from hf_ftedit.errors import EditError, shown

logger = logging.getLogger(__name__)

_NATIVE_FIELDS = {field.name for field in dataclass_fields(EditRecord)} | {"case_id", "id"}
_WORD = re.compile(r"\w+|[^\w\s]")


def read_edits(
    source: Source, format: str | None = None, limit: int | None = None, *, skip_invalid: bool = False
) -> list[EditRecord]:
    """
    The edits of a file, dataset or list, checked.

    Edits that occur twice (same prompt, same new target) are merged, with the probes of both. An edit that has no
    `edit_id`, `case_id` or `id` is named by its position, from 0.

    Args:
        source (`str`, `PathLike` or `Iterable`):
            A `.json`, `.jsonl`, `.csv` or `.parquet` file; the id of a Hub dataset as `"user/name"` or
            `"user/name:split"` (split `train` if none is given); a `datasets.Dataset`; or an iterable of dicts or of
            [`~hf_ftedit.EditRecord`].
        format (`str`, *optional*):
            `"native"`, `"counterfact"`, `"easyedit"` (KnowEdit too), `"zsre"` or `"mquake"`; by default each row's is
            recognised by its fields.
        limit (`int`, *optional*):
            Read no more than this many edits, the first ones.
        skip_invalid (`bool`, *optional*, defaults to `False`):
            Leave out rows that are not usable edits, and edits that contradict an earlier one, and log how many,
            instead of raising an error.

    Raises:
        [`~hf_ftedit.EditError`]: the source cannot be read, a row is not a usable edit, two edits give one
            prompt different targets, or two edits have one `edit_id`.
    """
    if format is not None and format not in FORMATS:
        raise EditError(f"format {shown(format)} is not known; use one of {', '.join(FORMATS)}, or leave it out")
    limit = _checked_limit(limit)
    edits, unused, skipped = _Edits(), dict[str, None](), list[str]()
    for where, record in _records(source, format, unused, skipped if skip_invalid else None):
        edits.add(where, record)
        if len(edits.records) == limit:
            break
    if skip_invalid:
        skipped += edits.take_conflicts()
    if skipped:
        logger.warning("left out %d unusable edits; the first: %s", len(skipped), skipped[0])
    if unused:
        logger.warning("fields that are no part of an edit were not used: %s", ", ".join(map(str, unused)))
    records = edits.finished()
    if not (isinstance(source, list) and isinstance(source[0], EditRecord)):  # else it was said when they were read
        _note_unchanged(records)
    return records


def read_facts(source: Source, limit: int | None = None) -> list[Fact]:
    """
    The facts of a locality pool, in the order in which they stand.

    Rows are facts (`prompt`, `target`, maybe `subject` and `relation_id`), ROME's known facts (`prompt`, `attribute`),
    or edits in any format that [`read_edits`] knows. An edit gives what is true without it: its prompt and paraphrases
    with `target_true`, and its neighborhood prompts with their targets. A fact without a subject gets the longest
    subject of another row that its prompt holds, if any.

    Args:
        source (`str`, `PathLike` or `Iterable`):
            As for [`read_edits`]; [`~hf_ftedit.Fact`] objects are taken as they are.
        limit (`int`, *optional*):
            Read no more than this many facts, the first ones.

    Raises:
        [`~hf_ftedit.EditError`]: the source cannot be read, or holds no facts.
    """
    facts = list(itertools.islice(_facts(source), _checked_limit(limit)))
    if not facts:
        raise EditError("the locality pool holds no facts; its rows need a target, or edits a target_true")
    subjects = _Subjects(fact.subject for fact, _ in facts if fact.subject)
    return [replace(fact, subject=subjects.in_text(fact.prompt)) if is_open else fact for fact, is_open in facts]


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise EditError(f"limit is {limit}; give at least 1, or none to read all")
    return limit


def _records(
    source: Source, format: str | None, unused: dict[str, None], skipped: list[str] | None
) -> Iterator[tuple[str, EditRecord]]:
    """
    Each edit and where it stands.

    Fields that native rows have beyond an edit's go into `unused`; errors of single rows into `skipped`, if given.
    """
    for number, (where, row) in enumerate(read_rows(source)):
        try:
            found = list(_row_records(row, where, str(number), format, unused))
        except EditError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        yield from ((where, record) for record in found)


def _row_records(
    row: Any, where: str, default_id: str, format: str | None, unused: dict[str, None]
) -> Iterator[EditRecord]:
    values, name = _row_and_format(row, where, format)
    if name == "native":
        unused.update(dict.fromkeys(field for field in values if field not in _NATIVE_FIELDS))
    for native in to_native(values, where, default_id, name):
        yield EditRecord.from_dict(native, where, FORMATS[name].names)


def _row_and_format(row: Any, where: str, format: str | None) -> tuple[Mapping[str, Any], str]:
    if isinstance(row, EditRecord):
        return row.to_dict(), "native"
    if not isinstance(row, Mapping):
        raise EditError(f"{where}: is {kind(row)}; each row must be an object with the fields of an edit")
    return row, format or recognise(row, where)


class _Edits:
    """Edits that were read: no prompt twice, no `edit_id` twice."""

    def __init__(self) -> None:
        self.records: list[EditRecord] = []
        self._places: dict[str, tuple[int, str]] = {}
        self._by_id: dict[str, int] = {}
        self._merged = 0
        self._conflicts: list[str] = []

    def add(self, where: str, record: EditRecord) -> None:
        if clash := _two_answers(record.neighborhood_prompts):
            self._conflicts.append(f"{where} (edit_id {shown(record.edit_id)}): neighborhood_prompts gives {clash}")
            return
        if record.prompt in self._places:
            self._add_again(where, record)
            return
        if record.edit_id in self._by_id:
            other = self.records[self._by_id[record.edit_id]]
            prompts = f"{shown(other.prompt)} ({self._places[other.prompt][1]}) and {shown(record.prompt)}"
            raise Fields(record.to_dict(), where).error("edit_id", f"names two edits, {prompts}", "rename one of them")
        self._places[record.prompt] = len(self.records), where
        self._by_id[record.edit_id] = len(self.records)
        self.records.append(record)

    def _add_again(self, where: str, record: EditRecord) -> None:
        index, place = self._places[record.prompt]
        earlier = self.records[index]
        if clash := _two_answers(earlier.neighborhood_prompts + record.neighborhood_prompts):
            other = f"those of the same edit (edit_id {shown(earlier.edit_id)}, {place})"
            ours = f"{where} (edit_id {shown(record.edit_id)}): neighborhood_prompts and {other}"
            self._conflicts.append(f"{ours} give {clash}")
            return
        if earlier.target_new == record.target_new:
            self._merged += 1
            self.records[index] = _united(earlier, record)
            return
        prompt = f"{shown(record.prompt)} both {shown(earlier.target_new)} (edit_id {shown(earlier.edit_id)}, {place})"
        ours = f"{where} (edit_id {shown(record.edit_id)}): target_new gives the prompt"
        self._conflicts.append(f"{ours} {prompt} and {shown(record.target_new)}")

    def take_conflicts(self) -> list[str]:
        """The contradictions found so far, which are then no error any more."""
        taken, self._conflicts = self._conflicts, []
        return taken

    def finished(self) -> list[EditRecord]:
        """The edits, where no two contradict each other."""
        if self._conflicts:
            others = len(self._conflicts) - 1
            more = f" ({others} more such conflicts follow)" if others else ""
            raise EditError(
                f"{self._conflicts[0]}; keep one answer a prompt, or leave such edits out with --skip_invalid{more}"
            )
        if self._merged:
            logger.warning("merged %d duplicate edits", self._merged)
        return self.records


def _note_unchanged(records: Iterable[EditRecord]) -> None:
    unchanged = [record.edit_id for record in records if record.target_new == record.target_true]
    if unchanged:
        logger.warning("target_new is target_true in %d edits, first in edit_id %r", len(unchanged), unchanged[0])


def _two_answers(probes: Iterable[NeighborhoodPrompt]) -> str | None:
    """The first prompt with two answers, and these."""
    answers: dict[str, str] = {}
    for probe in probes:
        if probe.target is not None and answers.setdefault(probe.prompt, probe.target) != probe.target:
            return f"the prompt {shown(probe.prompt)} both {shown(answers[probe.prompt])} and {shown(probe.target)}"
    return None


def _united(first: EditRecord, second: EditRecord) -> EditRecord:
    """`first`, with what only `second` has."""
    changes: dict[str, Any] = {}
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, tuple):
            known = set(value)
            changes[name] = value + tuple(item for item in other if item not in known)
            if name == "neighborhood_prompts":  # a probe with an answer says more than the same without
                answered = {probe.prompt for probe in changes[name] if probe.target is not None}
                kept = (probe for probe in changes[name] if probe.target is not None or probe.prompt not in answered)
                changes[name] = tuple(kept)
        elif value is None:
            changes[name] = other
    return replace(first, **changes)


def _facts(source: Source) -> Iterator[tuple[Fact, bool]]:
    """Each fact, and whether its subject is to be looked for."""
    for number, (where, row) in enumerate(read_rows(source)):
        if isinstance(row, Fact):
            yield row, False
            continue
        for native in _fact_rows(row, where, str(number)):
            fact = Fact.from_dict(native, where)
            yield fact, fact.subject is None


def _fact_rows(row: Any, where: str, default_id: str) -> Iterator[dict[str, Any]]:
    if isinstance(row, Mapping) and is_blank(row.get("target_new")) and ("target" in row or "attribute" in row):
        given = {name: value for name, value in row.items() if value is not None}
        yield {"prompt": row.get("template"), "target": row.get("attribute"), **given}
        return
    values, format = _row_and_format(row, where, None)
    for native in to_native(values, where, default_id, format):
        about = {name: native.get(name) for name in ("edit_id", "subject", "relation_id")}
        fields = Fields(native, where)
        prompts = [native.get("prompt"), *(prompt for _, prompt in fields.items("paraphrase_prompts"))]
        facts = [{"prompt": prompt, "target": native.get("target_true"), **about} for prompt in prompts]
        near = [dict(probe.values) for probe in fields.objects("neighborhood_prompts", text="prompt")]
        yield from (fact for fact in facts + near if not is_blank(fact.get("target")))


class _Subjects:
    """Finds known subjects in texts, in time that does not grow with their number."""

    def __init__(self, subjects: Iterable[str]) -> None:
        self._subjects = set(subjects)
        self._lengths = sorted({len(_WORD.findall(subject)) for subject in self._subjects} - {0}, reverse=True)

    def in_text(self, text: str) -> str | None:
        """The known subject of the most words in `text`, the first of them."""
        words = [match.span() for match in _WORD.finditer(text)]
        for length in self._lengths:
            for (start, _), (_, end) in zip(words, words[length - 1 :], strict=False):
                if text[start:end] in self._subjects:
                    return text[start:end]
        return None
