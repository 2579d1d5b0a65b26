"""Edit records and facts of a locality pool, and the native format that stores them."""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

from hf_ftedit.data.fields import Fields, kind
from hf_ftedit.errors import EditError, shown
from hf_ftedit.scripts import ONE_LETTER

# Left out of a row where they say nothing: rows without them are as 0.1.0 wrote them.
NEW_FIELDS = ("wordings", "near_name_prompts", "made_probes", "erase")
_STATEMENTS = ("paraphrase_prompts", "generation_prompts", "wordings")  # in which `{}` stands for the subject
TARGET_REMEDY = "give the text that should follow the prompt"


class NeighborhoodPrompt(NamedTuple):
    """A prompt whose answer must not change, that answer where the data gives it, and the unedited model's own one."""

    prompt: str
    target: str | None = None
    answer: str | None = None  # the whole of what the unedited model says; measuring fills it in


class PortabilityPrompt(NamedTuple):
    """A prompt that follows from the edit, the answers that count as right, and how it follows: `"reasoning"`."""

    prompt: str
    answers: tuple[str, ...]
    aspect: str | None = None


class Statement:
    """The base of edits and facts: a prompt about a subject."""

    prompt: str
    subject: str | None
    relation_id: str | None

    @property
    def template(self) -> str | None:
        """`prompt` with `{}` for the subject; None without one in the prompt, or where that has `{}` of its own."""
        if not self.subject or self.subject not in self.prompt or "{}" in self.prompt:
            return None
        first, *rest = parts = self.prompt.split(self.subject)
        # "a" also stands inside "capital": where the subject occurs as a word of its own, only that is the subject.
        # Not a regex with \b: there are no word boundaries in scripts without spaces.
        own = [not (ONE_LETTER.match(before[-1:]) or ONE_LETTER.match(after[:1])) for before, after in pairwise(parts)]
        joints = ["{}" if is_own or not any(own) else self.subject for is_own in own]
        return first + "".join(joint + part for joint, part in zip(joints, rest, strict=True))


# Fields of an edit that hold several, by what each of them is.
_LISTED: dict[str, type] = {
    "neighborhood_prompts": NeighborhoodPrompt,
    "portability_prompts": PortabilityPrompt,
    **dict.fromkeys((*_STATEMENTS, "target_aliases", "reference_texts", "near_name_prompts"), str),
}

# The others: what each may be, and that in words.
_PLAIN: list[tuple[str, Any, str]] = [
    *((name, str, "a text") for name in ("edit_id", "prompt", "target_new")),
    *((name, str | None, "a text, or None") for name in ("subject", "target_true", "relation_id")),
    *((name, bool, "True or False") for name in ("made_probes", "erase")),
]


@dataclass(frozen=True)
class EditRecord(Statement):
    """
    One edit request with its probes.

    Args:
        edit_id (`str`): Name of the edit, its own within a file.
        prompt (`str`): The text that `target_new` is to follow, with the subject written out.
        target_new (`str`): The answer that the edited model is to give.
        subject (`str`, *optional*): The thing that the prompt is about.
        target_true (`str`, *optional*): The answer before the edit.
        paraphrase_prompts (`tuple[str, ...]`, *optional*, defaults to `()`): Other wordings of the prompt.
        neighborhood_prompts (`tuple[NeighborhoodPrompt, ...]`, *optional*, defaults to `()`): Prompts whose answers
            must not change.
        portability_prompts (`tuple[PortabilityPrompt, ...]`, *optional*, defaults to `()`): Prompts that follow from
            the edit, with their answers.
        generation_prompts (`tuple[str, ...]`, *optional*, defaults to `()`): Openings for free text about the subject.
        relation_id (`str`, *optional*): Name of the relation, such as Wikidata's `P103`.
        target_aliases (`tuple[str, ...]`, *optional*, defaults to `()`): Other names of `target_new`, which count
            where the model's own answer is compared with it.
        reference_texts (`tuple[str, ...]`, *optional*, defaults to `()`): Texts about things of which `target_new` is
            true, with which generated text should be consistent.
        wordings (`tuple[str, ...]`, *optional*, defaults to `()`): Other ways to ask for the edit, which are trained
            on.
        near_name_prompts (`tuple[str, ...]`, *optional*, defaults to `()`): Prompts about a subject whose name is a
            letter or a word away: `target_new` must not be said there.
        made_probes (`bool`, *optional*, defaults to `False`): The package made the probes of this edit itself.
        erase (`bool`, *optional*, defaults to `False`): The model is not to give the old answer any more. `target_new`
            is what it says instead, and may be empty: see
            [`~hf_ftedit.augmentation.erasure.with_erasures`].

    Example:
        >>> EditRecord("a", "The capital of Kazakhstan is", "Astana", subject="Kazakhstan").template
        'The capital of {} is'
    """

    edit_id: str
    prompt: str
    target_new: str
    subject: str | None = None
    target_true: str | None = None
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[NeighborhoodPrompt, ...] = ()
    portability_prompts: tuple[PortabilityPrompt, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    relation_id: str | None = None
    target_aliases: tuple[str, ...] = ()
    reference_texts: tuple[str, ...] = ()
    wordings: tuple[str, ...] = ()
    near_name_prompts: tuple[str, ...] = ()
    made_probes: bool = False
    erase: bool = False

    def __post_init__(self) -> None:
        # Made in Python, it may hold what no file does: a text's letters would each be measured as a probe.
        for name, types, expected in _PLAIN:
            if not isinstance(value := getattr(self, name), types):
                raise self._error(name, value, f"give {expected}")
        for name, made in _LISTED.items():
            values = getattr(self, name)
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
                raise self._error(name, values, "give a list")
            object.__setattr__(self, name, tuple(self._listed(name, value, made) for value in values))

    def _listed(self, name: str, value: Any, made: type) -> Any:
        if isinstance(value, made):
            return value
        try:
            probe = made(**value) if isinstance(value, Mapping) else made(value)
        except TypeError as error:
            raise self._error(name, value, "give prompts, and what belongs to them by its name") from error
        if made is str or not isinstance(probe.prompt, str):
            raise self._error(name, value, "give texts")
        return probe

    def _error(self, name: str, value: object, remedy: str) -> EditError:
        return EditError(f"edit {shown(self.edit_id)}: {name} is {kind(value)}, {shown(value)}; {remedy}")

    def to_dict(self) -> dict[str, Any]:
        """The record as a row of the native format: text, lists and dicts, as `json` writes them."""
        # Not `dataclasses.asdict`: it takes three times as long, and keeps tuples, which no JSON reader gives back.
        row = {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()},
            "prompt": escaped(self.prompt),
            **{name: list(map(escaped, getattr(self, name))) for name in _STATEMENTS},
            "neighborhood_prompts": [_without(probe._asdict(), ["answer"]) for probe in self.neighborhood_prompts],
            "portability_prompts": [p._asdict() | {"answers": list(p.answers)} for p in self.portability_prompts],
        }
        return _without(row, NEW_FIELDS)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str = "", names: Mapping[str, str] | None = None) -> Self:
        """
        Make a record of a row of the native format, checked: the inverse of `to_dict`.

        Whitespace at the end of prompts and around other texts goes, as it would move the token boundary.

        Args:
            row (`Mapping[str, Any]`): Fields by name. `{}` in `prompt`, `wordings`, `paraphrase_prompts` and
                `generation_prompts` stands for `subject`, and `{{}}` for braces of the text itself.
            where (`str`, *optional*, defaults to `""`): The row's place, for errors: `"edits.jsonl line 7"`.
            names (`Mapping[str, str]`, *optional*): The source's own names of fields, for errors, where they differ.

        Raises:
            [`EditError`]: a required field is missing or empty, a field is of a wrong type, or a text is not usable.
        """
        fields = Fields(row, where, names or {})
        return cls(
            edit_id=fields.required("edit_id", "give each edit a name of its own"),
            prompt=fields.statement("prompt"),
            target_new=target_new(fields),
            subject=fields.text("subject"),
            target_true=fields.text("target_true"),
            paraphrase_prompts=fields.statements("paraphrase_prompts"),
            neighborhood_prompts=tuple(
                NeighborhoodPrompt(probe.prompt(), probe.continuation("target"), probe.text("answer"))
                for probe in fields.objects("neighborhood_prompts", "prompt")
            ),
            portability_prompts=tuple(
                PortabilityPrompt(probe.prompt(), probe.texts("answers"), probe.text("aspect"))
                for probe in fields.objects("portability_prompts")
            ),
            generation_prompts=fields.statements("generation_prompts"),
            relation_id=fields.text("relation_id"),
            target_aliases=fields.listed("target_aliases"),
            reference_texts=fields.listed("reference_texts"),
            wordings=fields.statements("wordings"),
            near_name_prompts=fields.prompts("near_name_prompts"),
            made_probes=fields.flag("made_probes"),
            erase=fields.flag("erase"),
        )


@dataclass(frozen=True)
class Fact(Statement):
    """
    An entry of a locality pool: a fact that must stay as it is.

    Args:
        prompt (`str`): The text that `target` follows.
        target (`str`): The answer.
        subject (`str`, *optional*): The thing that the prompt is about.
        relation_id (`str`, *optional*): Name of the relation, such as Wikidata's `P103`.
    """

    prompt: str
    target: str
    subject: str | None = None
    relation_id: str | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: str = "") -> Self:
        """Make a fact of a row with `prompt`, `target` and maybe `subject` and `relation_id`, checked as an edit's."""
        fields = Fields(row, where)
        target = fields.required("target", "give the fact's answer")
        return cls(fields.statement("prompt"), target, fields.text("subject"), fields.text("relation_id"))


def target_new(fields: Fields) -> str:
    """The text that an edit makes the model say; of an erased fact it may be open until a model is there."""
    return (fields.text("target_new") or "") if fields.flag("erase") else fields.required("target_new", TARGET_REMEDY)


def fact_keys(edit: EditRecord) -> list[tuple[str, ...]]:
    """Keys that edits of the same fact share: the prompt, and the subject with the relation."""
    about = [(folded(edit.subject), edit.relation_id)] if edit.subject and edit.relation_id else []
    return [(without_mark(edit.prompt),), *about]


def statement_of(edit: EditRecord) -> tuple[str, str]:
    """The prompt of an edit and what it states; what is said instead of an erased fact is the model's own."""
    return edit.prompt, "" if edit.erase else edit.target_new


def folded(text: str) -> str:
    """`text` without what makes no other fact: case, more than one blank, two ways to write one letter."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def without_mark(prompt: str) -> str:
    """A prompt [`folded`], and without the mark that ends its sentence, which many leave out: but "5!" is a number."""
    return re.sub(r"(?<=\w)[?.？。]$", "", folded(prompt))


def escaped(prompt: str) -> str:
    """`prompt` as a statement in which `{}` stands for nothing but itself."""
    return prompt.replace("{}", "{{}}")


def _without(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`row` without those of the fields `names` that are empty."""
    return {name: value for name, value in row.items() if value or name not in names}


def write_jsonl(records: Iterable[EditRecord], path: str | os.PathLike[str]) -> None:
    """Write records in the native format, one JSON object a line; a file that is there is replaced."""
    # One line end on every system: a saved folder states the SHA-256 of this file.
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records)
