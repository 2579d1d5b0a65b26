"""Whatever a text holds, it is shown as text, and what cannot be seen is named."""

import ast
import json
import re
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_ftedit.hub.markdown import code_block, code_span, literal, markdown_text, one_line, visible

# Hostile text, and what is shown of it where that is not the text with single spaces.
EXAMPLES = json.loads((Path(__file__).parents[1] / "fixtures" / "hostile_texts.json").read_text(encoding="utf-8"))
HOSTILE = {name: text for name, (text, *_) in EXAMPLES.items()}
TEXTS = [
    pytest.param(text, *(shown or [" ".join(text.split())]), id=name) for name, (text, *shown) in EXAMPLES.items()
]
PARSER = MarkdownIt("gfm-like", {"linkify": find_spec("linkify_it") is not None})  # all that may become a link


def inline(source):
    """What the only paragraph of `source` holds."""
    (paragraph,) = [token for token in PARSER.parse(source) if token.type == "inline"]
    return paragraph.children


def shown_of(source):
    """The text that the only paragraph of `source` shows, by GitHub's rules: none of it is a link or a formula."""
    # Both are looked for in each run of text, once backslashes are gone: cmark-gfm and remark-gfm look for addresses
    # so, and the documentation of GitHub puts a dollar sign that is one into a span.
    runs = [""]
    for child in inline(source):
        if child.type == "html_inline":
            assert child.content in ("<span>", "</span>")
            runs.append("")
        else:
            runs[-1] += child.content
    for run in runs:
        assert not re.search(r"[\w.+-]@[\w-]|://\w|\bwww\.\w|[$].*[$]", run, re.IGNORECASE | re.ASCII), run
    return "".join(runs)


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_text_is_shown_on_one_line(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_markdown_shows_nothing_but_the_text(text, shown):
    assert {child.type for child in inline(f"a {markdown_text(text)}")} <= {"text", "text_special", "html_inline"}
    assert shown_of(f"a {markdown_text(text)}") == f"a {shown}"


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_code_span_holds_the_text(text, shown):
    _, code, _ = inline(f"a {code_span(text)} b")
    assert (code.type, code.content) == ("code_inline", shown)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_code_block_holds_the_text(text):
    tokens = PARSER.parse(f"a\n\n{code_block(text, 'text')}\n\nb")
    assert [token.content for token in tokens if token.content] == ["a", visible(text) + "\n", "b"]


def test_of_a_long_text_a_card_shows_the_beginning_and_says_so():
    assert len(markdown_text("a $ @ " * 20_000)) < 3000
    assert code_block("ab" * 50_000).endswith("ab…\n(80000 more characters)\n```")


def test_code_block_keeps_lines_and_spaces():
    assert code_block("a\n\tb\u3000c", "text") == "```text\na\n\tb\u3000c\n```"
    assert code_block("```\n````") == "`````\n```\n````\n`````"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_literal_is_the_text_in_plain_sight(text):
    code = literal(text)
    assert ast.literal_eval(code) == text
    assert code.isprintable() and not any(unicodedata.name(char, "").startswith("VARIATION") for char in code)


@given(st.text())
def test_any_text_is_shown(text):
    assert ast.literal_eval(literal(text)) == text
    assert literal(text).isprintable()
    seen = visible(text)
    assert visible(seen) == seen  # what is left can be seen
    assert shown_of(f"a {markdown_text(text)}") == f"a {one_line(text)}".rstrip()


def test_right_to_left_text_and_emoji_stay_whole():
    for name in ("right to left", "persian and hindi", "emoji", "a new emoji"):
        assert visible(HOSTILE[name]) == HOSTILE[name]


def test_usual_text_is_hardly_escaped():
    text = "It's 3.5 km, isn't it? Yes - \"U.S. 1.0\": 50 %; a/b!"
    assert markdown_text(text) == text.replace("U.S.", "U\\.S.")
