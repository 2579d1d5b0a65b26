"""Any source to checked edits and facts: formats recognised, duplicates merged, contradictions refused."""

import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from hf_ftedit.data.fields import WORD, Fields, is_blank, kind
from hf_ftedit.data.formats import FORMATS, ID_FIELDS, is_qaedit, recognise, to_native
from hf_ftedit.data.records import (
    EditRecord,
    Fact,
    NeighborhoodPrompt,
    PortabilityPrompt,
    escaped,
    folded,
    target_new,
    without_mark,
)
from hf_ftedit.data.sources import Source, read_rows
from hf_ftedit.errors import EditError, shown
from hf_ftedit.options import EditOptions, check_value
from hf_ftedit.text import counted, visible

logger = logging.getLogger(__name__)

_PROBE_FIELDS = {"neighborhood_prompts": NeighborhoodPrompt._fields, "portability_prompts": PortabilityPrompt._fields}
_NATIVE_FIELDS = {field.name for field in dataclass_fields(EditRecord)} | {"case_id", "id"}
# Names that other tools have for fields of an edit.
_USUAL = {
    **dict.fromkeys("answer completion new_answer output response target".split(), "target_new"),
    **dict.fromkeys("old_answer true_answer".split(), "target_true"),
    **dict.fromkeys("paraphrases rephrasings".split(), "paraphrase_prompts"),
    **dict.fromkeys("neighbors neighbours neighborhood".split(), "neighborhood_prompts"),
}


def read_edits(
    source: Source, format: str | None = None, limit: int | None = None, *, skip_invalid: bool = False
) -> list[EditRecord]:
    """
    Read the edits of a file, dataset or list, and check them.

    Edits that occur twice (same prompt, same new target) are merged, with the probes of both. An edit that has no
    `edit_id`, `case_id` or `id` is named by its position, from 0.

    Args:
        source (`str`, `PathLike` or `Iterable`): A `.json`, `.jsonl`, `.csv` (of commas, semicolons or tabs), `.tsv`
            or `.parquet` file, the texts also as `.gz`; the id of a Hub dataset as `"user/name"` or
            `"user/name:split"` (split `train` if none is given); a `datasets.Dataset` or a `DataFrame`; or an iterable
            of dicts or of [`~hf_ftedit.EditRecord`], whose probes are taken as they are.
        format (`str`, *optional*): `"native"`, `"counterfact"`, `"easyedit"` (KnowEdit and WikiBigEdit too), `"zsre"`,
            `"mquake"` or `"qaedit"`; by default each row's is recognised by its fields.
        limit (`int`, *optional*): Read no more than this many edits, the first ones.
        skip_invalid (`bool`, *optional*, defaults to `False`): Leave out rows that are not usable edits, and edits
            that contradict an earlier one or have its `edit_id`, and log how many, instead of raising an error.

    Raises:
        [`~hf_ftedit.EditError`]: the source cannot be read, a row is not a usable edit, two edits give one
            prompt different targets, or two edits have one `edit_id`.
    """
    if format is not None and format not in FORMATS:
        raise EditError(f"format {shown(format)} is not known; use one of {', '.join(FORMATS)}, or leave it out")
    limit = check_value("limit", limit, int | None)
    edits, unused, skipped = _Edits(), dict[str, None](), list[str]()
    for where, record, is_named in _records(source, format, unused, skipped if skip_invalid else None):
        try:
            edits.add(where, record, is_named)
        except EditError as error:
            if not skip_invalid:
                raise
            skipped.append(str(error))
        # Counted after merging: the limit is one of distinct edits, and the rest of a large file stays unread.
        if len(edits.by_prompt) == limit:
            break
    records = edits.finished(skipped if skip_invalid else None)
    if skipped:
        logger.warning("left out %s; the first: %s", counted(len(skipped), "unusable edit"), skipped[0])
    if unused:
        logger.warning("fields that are no part of an edit were not used: %s", visible(", ".join(map(str, unused))))
    if not records:
        raise EditError(f"no usable edit is left; the first that was left out: {skipped[0]}")
    # Records were read before, by this function: its remark on them was logged then.
    was_read = isinstance(source, list) and isinstance(source[0], EditRecord)
    unchanged = [record.edit_id for record in records if record.target_new == record.target_true]
    apart = [record.edit_id for record in records if folded(record.subject or "") not in folded(record.prompt)]
    for problem, names in (("target_new is target_true", unchanged), ("the subject is not in the prompt", apart)):
        if names and not was_read:
            logger.warning("%s in %s, first in edit_id %r", problem, counted(len(names), "edit"), names[0])
    return records


def edits_of(options: EditOptions, source: Source | None) -> list[EditRecord]:
    """Read the edits of `source` as the options say, with an edit for each prompt of the option `erase`."""
    limits = (options.format, options.max_edits)
    edits = [] if source is None else read_edits(source, *limits, skip_invalid=options.skip_invalid)
    if not options.erase:
        return edits
    taken = {edit.edit_id for edit in edits}
    names = (name for name in (f"erase-{number}" for number in itertools.count(1)) if name not in taken)
    rows = [{"edit_id": name, "prompt": text, "erase": True} for text, name in zip(options.erase, names, strict=False)]
    return read_edits([*edits, *rows])


def combine_edits(parts: Iterable[tuple[str, Sequence[EditRecord]]]) -> list[EditRecord]:
    """Put the edits of several adapters, each with its name, together; an edit that occurs twice is merged."""
    # Two adapters may name different edits alike: the later one becomes "name:edit_id", so that none is lost; where
    # that is taken too, as in the third file of edits without names of their own, "name-2:edit_id".
    prompts: dict[str, str] = {}  # by edit_id
    edits = []
    for name, part in parts:
        for edit in part:
            edit_id, number = edit.edit_id, 1
            while prompts.setdefault(edit_id, edit.prompt) != edit.prompt:
                edit_id = f"{name}:{edit.edit_id}" if number == 1 else f"{name}-{number}:{edit.edit_id}"
                number += 1
            edits.append(replace(edit, edit_id=edit_id))
    # Through the reader: duplicates and contradictions among adapters are those of one file.
    return read_edits(edits) if edits else []


def read_facts(source: Source, limit: int | None = None) -> list[Fact]:
    """
    Read the facts of a locality pool, in their order.

    Rows are facts (`prompt`, `target`, maybe `subject` and `relation_id`), ROME's known facts (`prompt`, `attribute`),
    or edits in any format that [`read_edits`] knows. An edit gives what is true without it: its prompt and paraphrases
    with `target_true`, and its neighborhood prompts with their targets. A fact without a subject gets the longest
    subject of another row that its prompt holds, if any.

    Args:
        source (`str`, `PathLike` or `Iterable`): As for [`read_edits`]; [`~hf_ftedit.Fact`] objects are taken as they
            are.
        limit (`int`, *optional*): Read no more than this many facts, the first ones.

    Raises:
        [`~hf_ftedit.EditError`]: the source cannot be read, or holds no facts.
    """
    facts = list(itertools.islice(_facts(source), check_value("limit", limit, int | None)))
    if not facts:
        name = shown(source) if isinstance(source, str) else "the source"
        raise EditError(f"{name} holds no facts; its rows need a target, or edits a target_true")
    # Without a subject, a fact has no template, and so mostly no relation: only at random would it be rehearsed.
    subjects = _Subjects(fact.subject for fact, _ in facts if fact.subject)
    return [replace(fact, subject=subjects.in_text(fact.prompt)) if is_open else fact for fact, is_open in facts]


def facts_about_others(facts: Sequence[Fact], records: Iterable[EditRecord]) -> list[Fact]:
    """Facts of which no one of `records` edits subject or prompt; raises [`EditError`] where none of them is left."""
    edited = {text for record in records for text in (record.subject, record.prompt) if text}
    others = [fact for fact in facts if not {fact.subject, fact.prompt} & edited]
    if facts and not others:
        raise EditError("known_facts holds no fact about a subject that is not edited; give others")
    return others


def _records(
    source: Source, format: str | None, unused: dict[str, None], skipped: list[str] | None
) -> Iterator[tuple[str, EditRecord, bool]]:
    """Each edit, its place, and whether it brings its id; other fields go into `unused`, errors into `skipped`."""
    for number, (where, row) in enumerate(read_rows(source)):
        try:
            is_named = not isinstance(row, Mapping) or any(not is_blank(row.get(name)) for name in ID_FIELDS)
            # As a list: of a row with an unusable edit, such as a case of several rewrites, none is taken.
            yield from [(where, record, is_named) for record in _row_records(row, where, str(number), format, unused)]
        except EditError as error:
            if skipped is None:
                raise
            skipped.append(str(error))


def _row_records(
    row: Any, where: str, default_id: str, format: str | None, unused: dict[str, None]
) -> Iterator[EditRecord]:
    if isinstance(row, EditRecord):
        # Read before, or made in Python: not read again through a dict. But a space or nothing where the prompt ends
        # and the target begins would move the boundary that training and scores depend on.
        fields = Fields(vars(row), where)
        yield replace(row, prompt=fields.prompt(), target_new=target_new(fields))
        return
    values, name = _row_and_format(row, where, format)
    if name == "native":
        for field in _unknown_fields(values):
            if (meant := _meant(str(field))) and meant not in values:
                raise Fields(values, where).error(field, "is no field of an edit", f"did you mean {meant}?")
            unused[field] = None
    # One row may be several edits: MQuAKE's cases have a rewrite for each hop.
    for native in to_native(values, where, default_id, name):
        record = EditRecord.from_dict(native, where, FORMATS[name].names)
        if name == "native":  # published files are measured as they are
            others = [text for text in record.paraphrase_prompts if folded(text) != folded(record.prompt)]
            if len(others) < len(record.paraphrase_prompts):  # it is trained on
                unused["paraphrase_prompts (the prompt itself)"] = None
                record = replace(record, paraphrase_prompts=tuple(others))
        yield record


@functools.cache
def _meant(name: str) -> str | None:
    """The field of an edit that `name` seems to mean: a usual name of it, or a slip such as `paraphrase_prompt`."""
    alike = [_USUAL.get(name.casefold()), *get_close_matches(name, sorted(_NATIVE_FIELDS), n=1, cutoff=0.85)]
    return next(filter(None, alike), None)


def _unknown_fields(values: Mapping[str, Any]) -> Iterator[str]:
    """Fields of a native row, and of its probes, that are no part of an edit; a table's index has no name."""
    yield from (name for name in values if name not in _NATIVE_FIELDS and not is_blank(name))
    for name, known in _PROBE_FIELDS.items():
        for probe in (probe for _, probe in Fields(values).items(name) if isinstance(probe, Mapping)):
            yield from (f"{name}.{key}" for key in probe if key not in known)
            # Measuring fills it in beside the target; without one it is a slip, and another answer would have to stay.
            if "target" in known and not is_blank(probe.get("answer")) and is_blank(probe.get("target")):
                yield f"{name}.answer (name it target)"


def _row_and_format(row: Any, where: str, format: str | None) -> tuple[Mapping[str, Any], str]:
    if not isinstance(row, Mapping):
        raise EditError(f"{where}: is {kind(row)}; each row must be an object with the fields of an edit")
    return row, format or recognise(row, where)


class _Edits:
    """The edits read so far, each prompt and each `edit_id` once, and the contradictions among them."""

    def __init__(self) -> None:
        self.by_prompt: dict[str, tuple[str, EditRecord]] = {}  # with the place of each
        self._prompts: dict[str, str] = {}  # by edit_id
        self._asked: dict[str, tuple[str, EditRecord]] = {}  # by prompt and wording, as `without_mark`
        self._merged = 0
        self._contradictions: list[str] = []

    def add(self, where: str, record: EditRecord, is_named: bool) -> None:
        place, earlier = self.by_prompt.get(record.prompt, (where, None))
        if not is_named and record.edit_id in self._prompts:  # its place in the list is the name of another edit
            free = (str(number) for number in itertools.count(len(self._prompts)) if str(number) not in self._prompts)
            record = replace(record, edit_id=next(free))
        texts = {without_mark(text): text for text in (*record.wordings, record.prompt)}
        if problem := self._contradiction(where, record, texts):
            # Collected, not raised: the error says how many there are, and `skip_invalid` leaves all of them out.
            self._contradictions.append(problem)
            return
        if earlier:
            self._merged += 1
            record = _merged(earlier, record)
        elif other := self._prompts.get(record.edit_id):
            prompts = f"{shown(other)} ({self.by_prompt[other][0]}) and {shown(record.prompt)}"
            raise Fields(vars(record), where).error("edit_id", f"names two edits, {prompts}", "rename one of them")
        self._prompts[record.edit_id] = record.prompt
        for text in texts:
            self._asked.setdefault(text, (where, record))
        self.by_prompt[record.prompt] = place, record

    def _contradiction(self, where: str, record: EditRecord, texts: Mapping[str, str]) -> str | None:
        """Say where `record`, which asks these `texts`, contradicts itself or an edit before it; None where not."""
        start, probes = f"{where} (edit_id {shown(record.edit_id)}):", record.neighborhood_prompts
        if clash := _two_answers(probes):
            return f"{start} neighborhood_prompts gives {clash}"
        place, earlier = self.by_prompt.get(record.prompt, (where, None))
        if earlier and (clash := _two_answers(earlier.neighborhood_prompts + probes)):
            other = f"(edit_id {shown(earlier.edit_id)}, {place})"
            return f"{start} neighborhood_prompts and those of the same edit {other} give {clash}"
        for text, written in texts.items():
            place, edit = self._asked.get(text, (where, record))
            if edit.target_new != record.target_new:
                other = f"(edit_id {shown(edit.edit_id)}, {place})"
                targets = f"{shown(edit.target_new)} {other} and {shown(record.target_new)}"
                return f"{start} target_new gives the prompt {shown(written)} both {targets}"
        return None

    def finished(self, skipped: list[str] | None) -> list[EditRecord]:
        """The edits; where two contradict each other, an error, or a line in `skipped` where that is given."""
        if skipped is not None:
            skipped += self._contradictions
        elif self._contradictions:
            others = len(self._contradictions) - 1
            more = f" ({counted(others, 'more such conflict')})" if others else ""
            remedy = "keep one answer a prompt, or leave such edits out with --skip_invalid"
            raise EditError(f"{self._contradictions[0]}; {remedy}{more}")
        if self._merged:
            logger.warning("merged %s", counted(self._merged, "duplicate edit"))
        return [record for _, record in self.by_prompt.values()]


def _two_answers(probes: Iterable[NeighborhoodPrompt]) -> str | None:
    """The first prompt with two answers, and these."""
    answers: dict[str, str] = {}
    for probe in probes:
        if probe.target is not None and answers.setdefault(probe.prompt, probe.target) != probe.target:
            return f"the prompt {shown(probe.prompt)} both {shown(answers[probe.prompt])} and {shown(probe.target)}"
    return None


def _merged(first: EditRecord, second: EditRecord) -> EditRecord:
    """`first`, with all that only `second` has."""
    changes: dict[str, Any] = {}
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, tuple):
            # Compared with `first` only: CounterFact has one generation prompt several times, on purpose.
            own = set(value)
            changes[name] = value + tuple(item for item in other if item not in own)
        elif value is None:
            changes[name] = other
    near: dict[str, NeighborhoodPrompt] = {}
    for probe in changes["neighborhood_prompts"]:
        # A probe with an answer says more than the same probe without; two answers were refused before.
        known = near.get(probe.prompt, probe)
        near[probe.prompt] = known._replace(target=known.target or probe.target, answer=known.answer or probe.answer)
    return replace(first, **{**changes, "neighborhood_prompts": tuple(near.values())})


def _facts(source: Source) -> Iterator[tuple[Fact, bool]]:
    """Each fact, and whether its subject is to be looked for."""
    open_rows = 0
    for number, (where, row) in enumerate(read_rows(source)):
        if isinstance(row, Fact):
            yield row, False
        else:
            values = row.to_dict() if isinstance(row, EditRecord) else row
            facts = [Fact.from_dict(native, where) for native in _fact_rows(values, where, str(number))]
            open_rows += not facts
            yield from ((fact, fact.subject is None) for fact in facts)
    if open_rows:
        logger.warning("left out %s without a target, which give no fact", counted(open_rows, "row"))


def _fact_rows(row: Any, where: str, default_id: str) -> Iterator[dict[str, Any]]:
    has_target = isinstance(row, Mapping) and is_blank(row.get("target_new")) and {"target", "attribute"} & row.keys()
    if has_target and not is_qaedit(row):
        # ROME's known facts hold the prompt filled in, or only its template.
        own = {name: value for name, value in row.items() if value is not None}
        yield {"prompt": row.get("template"), "target": row.get("attribute"), **own}
        return
    row, format = _row_and_format(row, where, None)
    for native in to_native(row, where, default_id, format):
        about = {name: native.get(name) for name in ("edit_id", "subject", "relation_id")}
        fields = Fields(native, where)
        others = [*fields.items("wordings"), *fields.items("paraphrase_prompts")]
        prompts = [native.get("prompt"), *(prompt for _, prompt in others)]
        facts = [{"prompt": prompt, "target": native.get("target_true"), **about} for prompt in prompts]
        # As in edits, `{}` stands for nothing in them.
        near = [
            {**probe.values, "prompt": escaped(probe.prompt())}
            for probe in fields.objects("neighborhood_prompts", text="prompt")
            if not is_blank(probe.values.get("target"))
        ]
        yield from near if is_blank(native.get("target_true")) else facts + near


class _Subjects:
    """Finds known subjects in texts, in time that does not grow with their number."""

    def __init__(self, subjects: Iterable[str]) -> None:
        self._subjects = set(subjects)
        self._lengths = sorted({len(WORD.findall(subject)) for subject in self._subjects} - {0}, reverse=True)

    def in_text(self, text: str) -> str | None:
        """The known subject of the most words in `text`, the first of them."""
        # Runs of words are looked up in a set: one regex of all subjects would try each of them at every place.
        words = [match.span() for match in WORD.finditer(text)]
        for length in self._lengths:
            for (start, _), (_, end) in zip(words, words[length - 1 :], strict=False):
                if text[start:end] in self._subjects:
                    return text[start:end]
        return None
