"""Whatever a text holds, it is shown as text, and what cannot be seen is named."""

import ast
import unicodedata
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_ftedit.hub.markdown import code_block, code_span, literal, markdown_text, one_line, visible

# Hostile text, and what is shown of it where that is not the text with single spaces.
HOSTILE = {
    "pipes": "a | b || c |",
    "a pipe on its own": "|",
    "pipe before an entity's name": "a|lt; b|gt; c|amp; d",
    "escaped pipes": r"a \| b \\| c \\\|",
    "nested table": "| a | b |\n|---|---|\n| c | d |",
    "newlines of all kinds": "a\n\n# b\r\nc\rd\u2028e\u2029f\u0085g\x0bh\x0ci",
    "backtick runs": "`a` ``b ```c\n```\nd ~~~ ````",
    "a backtick at the end": "a`",
    "html": "<script>alert(1)</script><!-- a --> <b onclick='x'>b</b>",
    "tags that close the page's": "</td></tr></table></details></div></body>",
    "html block": "<div>\n\n<details>\n<summary>a</summary>",
    "entities": "&lt;i&gt; &#60;u&#62; &amp;amp; &nbsp;a &#124; b",
    "front matter": "---\nlicense: mit\n---\n---",
    "yaml": "a: [b, {c: d}] # e\n- !!python/object:os.system f\n...\n%YAML 1.1 &g *g",
    "links": "[a](javascript:alert(1)) <http://e> [f]: g [f][g] [h]",
    "images": "![b](http://c/d.png) [![e](f)](g)",
    "reference": "[a]\n\n[a]: http://b 'c'",
    "footnotes": "a[^1]\n\n[^1]: b ^[c]",
    "bare addresses": "https://a.org/b?c=d&e=f http://g ftp://h.com www.i.com j.com/k //l.com",
    "mail and mentions": "a@b.com mailto:a@b.com @user user@ @org/team xmpp:a@b.c",
    "issues and commits": "#123 user/repo#4 GH-5 0123456789abcdef0123456789abcdef01234567",
    "emoji shortcodes": ":smile: :+1: a:b :-) ::",
    "emphasis": "*a* **b** __c__ ~~d~~ _e_ ==f== ++g++ ^h^ ~i~ ***",
    "template": "{{ metadata }} {% for x in y %} {# c #} ${d} %(e)s {f}",
    "quotes": 'it\'s "x" \'\'\'y\'\'\' """z""" \\\' \\" \\n \\',
    "formulas": r"$a$ $$b$$ \(c\) \\(d\\) \[e\] \\[f\\] \begin{g}h\end{g} $`i`$",
    "headings": "a\n===\nb\n---\n# c #\n###### d",
    "lists and tasks": "- a\n* b\n+ c\n1. d\n2) e\n- [ ] f\n- [x] g",
    "quotes and rules": "> a\n>> b\n***\n___\n- - -\n> [!NOTE]\n> c",
    "definitions": "a\n: b\n\n*[c]: d\n:::note\ne\n:::",
    "hard line breaks": "a\\\nb  \nc\\",
    "indented code": "    a\n\tb\n\n\tc",
    "very long": "word " * 3000,
    "a very long word": "x" * 5000,
    "very long without spaces": "\u4e2d\u6587" * 200,
    "control characters": "a\x01b\x7fc\x00d\x9fe",
    "terminal escapes": "\x1b[31mred\x1b[0m \x1b]8;;http://a\x07b\x1b]8;;\x07",
    "directions": "\u202eabc\u202c \u200f\u2066def\u2069 \u061cg",
    "zero width": "a\u200bb\u2060c\ufeffd\u00ade\u200df\u200cg",
    "letters without a shape": "a\u3164b\u115fc\u2800d\uffa0e",
    "marks piled up": "Z\u0301\u0302\u0303\u0304\u0305\u0306\u0307a\u0334\u0335",
    "a mark on its own": "\u0301 \u20e3a",
    "hidden in selectors": "a\ufe0f\ufe01\ufe02\U000e0100b",
    "hidden in tags": "a\U000e0068\U000e0069b",
    "half a character": "a\ud83db\udc00",
    "private and unassigned": "a\ue000b\U000f0000c\U000e0fffd",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u05e9\u05c1\u05b8",
    "persian and hindi": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937",
    "emoji": "\U0001f469\u200d\U0001f467 \u2764\ufe0f\u200d\U0001f525 \U0001f44d\U0001f3fd 1\ufe0f\u20e3",
    "flags": "\U0001f1f0\U0001f1ff \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "a new emoji": "\U0001fae9",
    "spaces": "\u00a0a\u00a0\u3000b\u2003\u202fc\td",
}
SHOWN = {
    "very long": ("word " * 60).strip() + "…",
    "a very long word": "x" * 60 + "…",
    "very long without spaces": "\u4e2d\u6587" * 150 + "…",
    "control characters": "a[U+0001]b[U+007F]c[U+0000]d[U+009F]e",
    "terminal escapes": "[U+001B][31mred[U+001B][0m [U+001B]]8;;http://a[U+0007]b[U+001B]]8;;[U+0007]",
    "directions": "[U+202E]abc[U+202C] [U+200F][U+2066]def[U+2069] [U+061C]g",
    "zero width": "a[U+200B]b[U+2060]c[U+FEFF]d[U+00AD]e[U+200D]f[U+200C]g",
    "letters without a shape": "a[U+3164]b[U+115F]c[U+2800]d[U+FFA0]e",
    "hidden in selectors": "a\ufe0f[U+FE01][U+FE02][U+E0100]b",
    "hidden in tags": "a[U+E0068][U+E0069]b",
    "flags": "\U0001f1f0\U0001f1ff \U0001f3f4[U+E0067][U+E0062][U+E0065][U+E006E][U+E0067][U+E007F]",
    "half a character": "a[U+D83D]b[U+DC00]",
    "private and unassigned": "a[U+E000]b[U+F0000]c[U+E0FFF]d",
}
TEXTS = [pytest.param(text, SHOWN.get(name, " ".join(text.split())), id=name) for name, text in HOSTILE.items()]
PARSER = MarkdownIt("gfm-like", {"linkify": find_spec("linkify_it") is not None})  # all that may become a link


def inline(source):
    """What the only paragraph of `source` holds."""
    (paragraph,) = [token for token in PARSER.parse(source) if token.type == "inline"]
    return paragraph.children


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_text_is_shown_on_one_line(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_markdown_shows_nothing_but_the_text(text, shown):
    children = inline(f"a {markdown_text(text)}")
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == f"a {shown}"


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_code_span_holds_the_text(text, shown):
    _, code, _ = inline(f"a {code_span(text)} b")
    assert (code.type, code.content) == ("code_inline", shown)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_code_block_holds_the_text(text):
    tokens = PARSER.parse(f"a\n\n{code_block(text, 'text')}\n\nb")
    assert [token.content for token in tokens if token.content] == ["a", visible(text) + "\n", "b"]


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
    children = inline(f"a {markdown_text(text)}")
    assert "".join(child.content for child in children) == f"a {one_line(text)}".rstrip()


def test_right_to_left_text_and_emoji_stay_whole():
    for name in ("right to left", "persian and hindi", "emoji", "a new emoji"):
        assert visible(HOSTILE[name]) == HOSTILE[name]


def test_usual_text_is_hardly_escaped():
    text = "It's 3.5 km, isn't it? Yes - \"U.S. 1.0\": 50 %; a/b!"
    assert markdown_text(text) == text.replace("U.S.", "U\\.S.")
