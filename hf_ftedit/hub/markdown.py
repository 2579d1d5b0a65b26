"""Any text as text: in Markdown, in code, in a Python literal, with a name for what cannot be seen."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection

SHOWN_CHARACTERS = 300  # of a text on one line
LONG_WORD = re.compile("([!-~]{60})[!-~]+")  # no browser breaks it, so that it makes a table too wide
# What Markdown, and the extensions that sites add to it, give a meaning. Colons make links and emoji where something
# follows, dots where a letter does; parentheses are here as `\\(` starts a formula on the Hub.
SPECIAL = re.compile(r"[\\`*_{}\[\]()<>&#+=|~^$@]|:(?=\S)|\.(?=[^\W\d])")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories: controls, formats, half and private characters
BLANKS = "\u115f\u1160\u2065\u2800\u3164\uffa0"  # letters and a symbol without a shape
SHAPELESS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # marks without a shape
# Hidden characters that are part of others: joiners, which Persian and emoji need, and the tags of England's flag.
PARTS = re.compile(
    "(?<=[^\0-\u02ff\u2000-\u206f])[\u200c\u200d](?=[^\0-\u02ff\u2000-\u206f])"
    "|(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
)
MARKS = 4  # that one character may carry


def markdown_text(text: str) -> str:
    """`text` on one line so that Markdown shows it as it is: it can neither end a table nor start markup."""
    return SPECIAL.sub(r"\\\g<0>", one_line(text))


def code_span(text: str) -> str:
    """`text` on one line as a code span, with as many backticks around it as it takes; not for the cell of a table."""
    text = one_line(text)
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """`text` as a fenced block, with as many backticks around it as it takes."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def one_line(text: str) -> str:
    """[`visible`] text with one space for each run of white space; a long word and a long text are cut short."""
    text = LONG_WORD.sub(r"\1…", visible(" ".join(text.split())))
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip(" \u200c\u200d") + "…"


def visible(text: str) -> str:
    """
    `text` with a name such as `[U+202E]` for what cannot be seen, turns the direction of writing, or piles up.

    Flags, emoji of several characters and letters with up to four marks stay whole, new lines and tabs are kept.
    """
    parts = {place for part in PARTS.finditer(text) for place in range(*part.span())}
    return _named(text, lambda char: f"[U+{ord(char):04X}]", _is_hidden, parts)


def literal(text: str) -> str:
    """`text` as a Python literal, with an escape for what cannot be seen or turns the direction of writing."""
    return _named(json.dumps(text, ensure_ascii=False), _escape, _is_doubtful)


def _named(
    text: str, name: Callable[[str], str], is_hidden: Callable[[str], bool], parts: Collection[int] = ()
) -> str:
    """`text` with a name for hidden characters, but for those at the places of `parts`, and for marks too many."""
    shown, marks = [], MARKS  # marks on the last character; a space, an ASCII sign or a name can carry none
    for place, char in enumerate(text):
        is_named = is_hidden(char) and place not in parts
        if unicodedata.category(char) in ("Mn", "Me"):
            is_named |= marks >= MARKS or bool(marks and SHAPELESS.match(char))
            marks += 1
        elif is_named or (char.isascii() and not char.isalnum()):
            marks = MARKS
        elif place not in parts:
            marks = 0
        shown.append(name(char) if is_named else char)
    return "".join(shown)


def _is_hidden(char: str) -> bool:
    """Whether it cannot be seen or turns the direction of writing; Python may not know the newest emoji yet."""
    category = unicodedata.category(char)
    return char in BLANKS or (category in HIDDEN and char not in "\n\t") or (category == "Cn" and char >= "\U000e0000")


def _is_doubtful(char: str) -> bool:
    """Whether it has no place in source code: a space other than the usual one, or what shows in some fonts alone."""
    return not char.isprintable() or char in BLANKS or bool(SHAPELESS.match(char))


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
