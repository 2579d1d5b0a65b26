"""Escape any text for Markdown, code and Python literals."""

import json
import re

from hf_ftedit.text import SHAPELESS, counted, visible

SHOWN_CHARACTERS, SHOWN_IN_BLOCK = 300, 20_000  # of a text on one line, and in a block of its own
LONG_WORD = re.compile("([!-~]{60})[!-~]+")  # no browser breaks it, so that it makes a table too wide
# Characters with a meaning in Markdown, or in the extensions that sites add to it. Colons make links and emoji where
# something follows, dots where a letter does; parentheses are here as `\\(` starts a formula on the Hub.
# The first ones make addresses and formulas, on GitHub and elsewhere, even behind a backslash: not in an element.
SPECIAL = re.compile(r"([@$]|:(?=//)|(?<=www)\.)|[\\`*_{}\[\]()<>&#+=|~^]|:(?=\S)|\.(?=[^\W\d])", re.IGNORECASE)


def markdown_text(text: str) -> str:
    """`text` on one line so that Markdown shows it as it is: it can neither end a table nor start markup."""
    return SPECIAL.sub(lambda mark: f"<span>{mark[0]}</span>" if mark[1] else f"\\{mark[0]}", one_line(text))


def code_span(text: str) -> str:
    """`text` on one line as a code span, with as many backticks around it as it takes; not for the cell of a table."""
    text = one_line(text)
    # A backslash does not escape a backtick inside a span: only a longer fence ends it later.
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(text: str, language: str = "") -> str:
    """`text` as a fenced block, with as many backticks around it as it takes; of a long one its beginning."""
    if len(text) > SHOWN_IN_BLOCK:
        text = f"{text[:SHOWN_IN_BLOCK]}…\n({counted(len(text) - SHOWN_IN_BLOCK, 'more character')})"
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def one_line(text: str) -> str:
    """[`visible`] text with one space for each run of white space; a long word and a long text are cut short."""
    text = LONG_WORD.sub(r"\1…", visible(" ".join(text.split())))
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip(" \u200c\u200d") + "…"


def literal(text: str) -> str:
    """`text` as a Python literal, with an escape for characters that cannot be seen."""
    # `repr` would do but for quotes: it takes single ones, and double ones where a text has single ones.
    return json.dumps(text, ensure_ascii=False) if text.isprintable() and not SHAPELESS.search(text) else ascii(text)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
