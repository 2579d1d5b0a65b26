"""Fields of one row of a user's input, read with checks: errors name the place, the edit, the field and the remedy."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_ftedit.errors import EditError, shown
from hf_ftedit.scripts import LETTER, UNSPACED, separated

# Words, and punctuation marks one by one: how subjects are looked for, probes compared and generated texts counted. Of
# scripts without spaces, each letter.
WORD = re.compile(rf"{LETTER}+|[{UNSPACED}]|[^\w\s]")
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}


def kind(value: object) -> str:
    """The type of `value` in the words of an error message."""
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


def is_blank(value: object) -> bool:
    """Is the cell empty: null, blank text, or the NaN, NA or NaT that tables have in place of null?"""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    # By name: pandas, which takes a second to load, need not have been.
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def plain(value: Any) -> Any:
    """`value`, of NumPy, pandas or torch as of Python, with all values inside it."""
    if type(value) is str:  # most are, and a file of edits has a million
        return value
    if hasattr(value, "tolist"):  # arrays, series, tensors, and their single numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if type(value) in (list, tuple):  # not the probes of a record, which are named tuples
        return [plain(item) for item in value]
    return None if is_blank(value) else value


@dataclass(frozen=True)
class Fields:
    """One row's fields, read with checks."""

    values: Mapping[str, Any]
    where: str = ""  # the row's place, for errors: "edits.jsonl line 7"
    names: Mapping[str, str] = field(default_factory=dict)  # the source's own names of fields, where they differ
    edit_id: Any = None  # the edit that the row is about, by default its `edit_id`
    prefix: str = ""  # the place of `values` inside the row: "neighborhood_prompts[2]."

    def error(self, name: str, problem: str, remedy: str) -> EditError:
        """An error about the field `name`, to be raised."""
        edit = "" if self._edit_id() is None else f"(edit_id {shown(self._edit_id())})"
        place = " ".join(filter(None, [self.where, edit]))
        name = f"{self.prefix}{name}"
        return EditError(f"{place}{place and ': '}{self.names.get(name, name)} {problem}; {remedy}")

    def text(self, name: str) -> str | None:
        """The field as text without whitespace around it; numbers are written out, and blank is None."""
        value = self.values.get(name)
        return None if is_blank(value) else self._checked(name, value).strip()

    def continuation(self, name: str) -> str | None:
        """The field as text that follows the prompt, with lines or a space before it where none would be put."""
        text, value = self.text(name), self.values.get(name)
        if not text or not isinstance(value, str):
            return text
        before = value[: len(value) - len(value.lstrip())]
        has_own = before.strip(" ") or separated(self.prompt(), text) == text
        return before + text if has_own else text

    def required(self, name: str, remedy: str) -> str:
        """The field as `text`, of which there must be some."""
        return self._required(name, self.values.get(name), remedy).strip()

    def prompt(self, name: str = "prompt") -> str:
        """The field as a prompt: text, its end stripped, of which there must be some."""
        return self._prompt(name, self.values.get(name))

    def statement(self, name: str = "prompt") -> str:
        """The field as a prompt with the row's subject in the place of `{}`, and `{}` in that of `{{}}`."""
        return self._filled(name, self.prompt(name))

    def statements(self, name: str) -> tuple[str, ...]:
        """The field as prompts, each as in `statement`; a text alone is one prompt."""
        return tuple(self._filled(item, self._prompt(item, value)) for item, value in self.items(name))

    def prompts(self, name: str) -> tuple[str, ...]:
        """The field as prompts in which `{}` stands for nothing; a text alone is one."""
        return tuple(self._prompt(item, value) for item, value in self.items(name))

    def flag(self, name: str) -> bool:
        """The field as true or false; blank is false."""
        value = self.values.get(name)
        text = "false" if is_blank(value) else str(value).strip().lower()  # in a table it may be text
        if text not in ("true", "false"):
            raise self.error(name, f"is {shown(value)}", "give true or false")
        return text == "true"

    def listed(self, name: str) -> tuple[str, ...]:
        """The field as any number of texts; a text alone is one."""
        return tuple(self._required(item, value, "leave it out").strip() for item, value in self.items(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """The field as one or more texts; a text alone is one."""
        if not (texts := self.listed(name)):
            raise self.error(name, "is missing", "give at least one")
        return texts

    def object(self, name: str) -> "Fields":
        """The fields of an object."""
        return self._inside(name, self.values.get(name))

    def objects(self, name: str, text: str = "") -> list["Fields"]:
        """The fields of each object in a list; if `text` is given, a text alone is an object with that field only."""
        items = self.items(name)
        if text:
            items = [(item, {text: value} if isinstance(value, str) else value) for item, value in items]
        return [self._inside(item, value) for item, value in items]

    def items(self, name: str) -> list[tuple[str, Any]]:
        """The name and value of each item of a list; null is an empty list, and anything else one item."""
        value = self.values.get(name)
        if isinstance(value, (list, tuple)):
            return [(f"{name}[{position}]", item) for position, item in enumerate(value)]
        return [] if is_blank(value) else [(name, value)]

    def _inside(self, name: str, value: Any) -> "Fields":
        if not isinstance(value, Mapping):
            raise self.error(name, f"is {kind(value)}", "give an object")
        return Fields(value, self.where, self.names, self._edit_id(), f"{self.prefix}{name}.")

    def _edit_id(self) -> Any:
        return self.values.get("edit_id") if self.edit_id is None else self.edit_id

    def _filled(self, name: str, prompt: str) -> str:
        if "{subject}" in prompt and self.text("subject"):
            raise self.error(name, f"is {shown(prompt)}", "write {} where the subject stands")
        parts = prompt.split("{{}}")
        if not any("{}" in part for part in parts):
            return "{}".join(parts)
        subject = self.text("subject")
        if subject is None:
            remedy = "give the subject, or write it in place of {}; braces of the text itself are written {{}}"
            raise self.error(name, f"is {shown(prompt)} and there is no subject", remedy)
        # The statement's template would have two places for one subject.
        if "{}" in subject:
            raise self.error("subject", f"is {shown(subject)}", "give the subject itself, without {}")
        return "{}".join(part.replace("{}", subject) for part in parts)

    def _prompt(self, name: str, value: Any) -> str:
        # A number is no prompt, though it is a target: somebody's columns are swapped.
        if isinstance(value, (int, float)) and not is_blank(value):
            raise self.error(name, f"is {shown(value)}, a number", "give text")
        # Only the end: a space there would move the boundary between the prompt's tokens and the target's.
        return self._required(name, value, "give the text to complete").rstrip()

    def _required(self, name: str, value: Any, remedy: str) -> str:
        if is_blank(value):
            raise self.error(name, "is empty" if isinstance(value, str) else "is missing", remedy)
        return self._checked(name, value)

    def _checked(self, name: str, value: Any) -> str:
        # Tables turn a column of years into floats where one is missing.
        if isinstance(value, float) and not math.isfinite(value):  # a number too large for one, such as 1e400
            raise self.error(name, f"is {value}", "give text")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        # A bool is an int to Python, but as an answer it is a slip, which would be trained as "True".
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.error(name, f"is {kind(value)}", "give text")
        if isinstance(value, int) and value.bit_length() > 10_000:  # Python writes out no more digits
            raise self.error(name, f"is {shown(value)}", "give text")
        text = str(value)
        # No tokenizer takes half a character, and a NUL ends the text in some: far from the row that holds it.
        if "\x00" in text:
            raise self.error(name, f"holds a NUL character: {shown(text)}", "remove it")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise self.error(name, f"holds half a character (a lone surrogate): {shown(text)}", "write it out in full")
        return text
