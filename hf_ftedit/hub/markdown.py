"""Escape any text for Markdown, code and Python literals, and name characters that cannot be seen."""

from __future__ import annotations

import json
import re
import unicodedata

SHOWN_CHARACTERS = 300  # of a text on one line
LONG_WORD = re.compile("([!-~]{60})[!-~]+")  # no browser breaks it, so that it makes a table too wide
# Characters with a meaning in Markdown, or in the extensions that sites add to it. Colons make links and emoji where
# something follows, dots where a letter does; parentheses are here as `\\(` starts a formula on the Hub.
SPECIAL = re.compile(r"[\\`*_{}\[\]()<>&#+=|~^$@]|:(?=\S)|\.(?=[^\W\d])")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories: controls, formats, half and private characters
# Letters, marks and tags without a shape, in which a text could hide another one.
SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
VISIBLE = "\n\t\u200c\u200d\ufe0f"  # of the above: line ends, and the joiners and selector of the next two lines
LOOSE_SELECTOR = re.compile("(?<=[\ufe0f])\ufe0f")  # one makes an emoji of a sign; more of them say something else
# Joiners shape Persian words and emoji; elsewhere nobody sees them.
LOOSE_JOINER = re.compile("(?<![^\0-\u02ff\u2000-\u206f])[\u200c\u200d]|[\u200c\u200d](?![^\0-\u02ff\u2000-\u206f])")


def markdown_text(text: str) -> str:
    """`text` on one line so that Markdown shows it as it is: it can neither end a table nor start markup."""
    return SPECIAL.sub(r"\\\g<0>", one_line(text))


def code_span(text: str) -> str:
    """`text` on one line as a code span, with as many backticks around it as it takes; not for the cell of a table."""
    text = one_line(text)
    # A backslash does not escape a backtick inside a span: only a longer fence ends it later.
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
    """`text` with a name such as `[U+202E]` for characters that cannot be seen or turn the direction of writing."""
    # Joiners come last: whether one is loose depends on what the steps before left beside it.
    text = "".join(_name(char) if _is_hidden(char) else char for char in text)
    return LOOSE_JOINER.sub(lambda char: _name(char[0]), LOOSE_SELECTOR.sub(lambda char: _name(char[0]), text))


def literal(text: str) -> str:
    """`text` as a Python literal, with an escape for characters that cannot be seen."""
    # `repr` would do but for quotes: it takes single ones, and double ones where a text has single ones.
    return json.dumps(text, ensure_ascii=False) if text.isprintable() and not SHAPELESS.search(text) else ascii(text)


def _is_hidden(char: str) -> bool:
    return char not in VISIBLE and (unicodedata.category(char) in HIDDEN or bool(SHAPELESS.match(char)))


def _name(char: str) -> str:
    return f"[U+{ord(char):04X}]"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
