"""Model and dataset cards: byte for byte as they were read and approved, and whole whatever an edit says."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from hf_ftedit.card import dataset_card, markdown_text, model_card, score_text
from hf_ftedit.records import EditRecord

GOLDEN = Path(__file__).parent / "golden"
RECORDS = [
    EditRecord("kz", "The capital of Kazakhstan is", "Almaty", target_true="Astana"),
    EditRecord("emma", "Who wrote Emma? It was", "Virginia Woolf"),
]
BEFORE = {
    "protocol": "probability",
    "n_edits": 2,
    "edit_score": 0.0,
    "edit_score_ci95": [0.0, 0.0],
    "efficacy": 0.0,
    "efficacy_ci95": [0.0, 0.0],
    "generalization": 25.0,
    "generalization_ci95": [0.0, 50.0],
    "locality": 93.125,
    "locality_ci95": [90.25, 95.4],
    "portability": None,
    "portability_ci95": None,
    "edit_score_note": None,
    "n_probes": {"rewrite": 2, "paraphrase": 4, "neighborhood": 10, "portability": 0},
}
AFTER = {
    **BEFORE,
    "edit_score": 94.7368,
    "edit_score_ci95": [90.0, 100.0],
    "efficacy": 100.0,
    "efficacy_ci95": [100.0, 100.0],
    "generalization": 100.0,
    "generalization_ci95": [100.0, 100.0],
    "locality": 85.7142,
}
RESULTS = {
    "before": BEFORE,
    "after": AFTER,
    "protocol": "probability",
    "n_edits": 2,
    "base_model": "user/tiny-gpt2",
    "base_model_revision": None,
}
RECIPE = {"model_name_or_path": "user/tiny-gpt2", "edits": "edits.jsonl", "lora_r": 8, "learning_rate": 0.001}
ANSWERS = [("Astana", "Almaty"), ("Jane Austen", "Virginia Woolf")]
WHOLE_MODEL = {**RESULTS, "base_model": "tiny-gpt2", "protocol": "accuracy"}
WHOLE_MODEL["after"] = {
    **AFTER,
    "edit_score": None,
    "edit_score_ci95": None,
    "locality": None,
    "locality_ci95": None,
    "portability": 50.0,
    "portability_ci95": [0.0, 100.0],
    "edit_score_note": "no neighborhood probe: locality is undefined",
    "n_probes": {"rewrite": 2, "paraphrase": 4, "neighborhood": 0, "portability": 2},
}
GENERATED = {
    "edit_score": None,
    "efficacy": 50.0,
    "efficacy_ci95": [0.0, 100.0],
    "generalization": 25.0,
    "locality": None,
}
ASPECTS = {"a_b": {"portability": 50.0, "portability_ci95": [0.0, 100.0], "n_probes": 2}}
for scores in (WHOLE_MODEL["before"], WHOLE_MODEL["after"]):
    measured = {"exact_match": GENERATED, "containment": GENERATED, "portability_aspects": ASPECTS, "n_texts": 400}
    WHOLE_MODEL["before" if scores is BEFORE else "after"] = {
        **scores,
        **measured,
        "perplexity": 21.25,
        "perplexity_ci95": [20.0, 22.5],
    }
SPLITS = [{"split": "train", "path": "train.parquet"}, {"split": "rewrite", "path": "rewrite.parquet"}]
CARDS = {
    "model_card.md": lambda: model_card(RECORDS, RESULTS, RECIPE, answers=ANSWERS),
    "full_model_card.md": lambda: model_card(
        RECORDS, WHOLE_MODEL, {**RECIPE, "chat_template": True, "locality_pool": "facts.jsonl"}, adapter=False
    ),
    "dataset_card.md": lambda: dataset_card(
        {"num_locality": 20, "seed": 42},
        {"train": 62, "rewrite": 2},
        {"configs": [{"config_name": "default", "data_files": SPLITS}]},
    ),
}
PARSER = MarkdownIt("gfm-like", {"linkify": False})
HOSTILE = {
    "pipes": "a | b || c |",
    "pipe before an entity's name": "a|lt; b|gt; c|amp; d",
    "escaped pipe": r"a \| b \\| c",
    "newlines": "a\n\n# b\r\n| c | d | e |\n|---|---|---|\u2028f\u0085g",
    "backticks": "`a` ``b ```c\n```\nd ~~~",
    "html": "<script>alert(1)</script><!-- a --> <b onclick='x'>b</b> &lt;i&gt; &#60;u&#62;",
    "front matter": "---\nlicense: mit\n---\n---",
    "right to left": "\u202eabc\u202c \u200f\u2066def\u2069 \u05e9\u05dc\u05d5\u05dd",
    "very long": "word " * 3000 + "x" * 5000,
    "links and images": "[a](javascript:alert(1)) ![b](http://c/d.png) <http://e> [f]: g",
    "emphasis and strikes": "*a* **b** __c__ ~~d~~ _e_",
    "template": "{{ metadata }} {% for x in y %} {# c #} ${d}",
    "yaml": "a: [b, {c: d}] # e\n- !!python/object:os.system f",
    "quotes": 'it\'s "x" \'\'\'y\'\'\' """z""" \\\' \\" \\n \\',
    "math and marks": "$a$ $$b$$ \\(c\\) #d + e - f ! 1. g",
    "control characters": "a\x01b\x7fc\x1bd\te\x0bf",
    "a column on its own": "|",
}


def front_matter(card):
    assert card.startswith("---\n")
    end = card.index("\n---\n", 4)
    return yaml.safe_load(card[4:end]), card[end + 5 :]


def table_shapes(tokens):
    """Cells of each row of each table."""
    tables, cells = [], 0
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type in ("th_open", "td_open"):
            cells += 1
        elif token.type == "tr_close":
            tables[-1].append(cells)
            cells = 0
    return tables


def cell_texts(tokens):
    """What the cells of all tables show, row by row; a table drops the cells that a row has too many."""
    inside = [after for before, after in pairwise(tokens) if before.type in ("th_open", "td_open")]
    return ["".join(child.content for child in token.children) for token in inside]


def flat(tokens):
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def code_block(card):
    (found,) = [token for token in PARSER.parse(front_matter(card)[1]) if token.info == "python"]
    return found.content


@pytest.mark.parametrize("name", CARDS)
def test_card_is_the_golden_file(name):
    assert CARDS[name]().encode("utf-8") == (GOLDEN / name).read_bytes()


def test_metadata_of_an_adapter():
    metadata, _ = front_matter(CARDS["model_card.md"]())
    assert list(metadata) == ["library_name", "pipeline_tag", "base_model", "tags", "model-index"]
    assert metadata["library_name"] == "peft" and metadata["base_model"] == "user/tiny-gpt2"
    assert "hf-ftedit" in metadata["tags"] and "lora" in metadata["tags"]
    (result,) = metadata["model-index"][0]["results"]
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [
        ("edit_score", 94.74),
        ("efficacy", 100.0),
        ("generalization", 100.0),
        ("locality", 85.71),
    ]


def test_metadata_of_a_whole_model():
    metadata, _ = front_matter(CARDS["full_model_card.md"]())
    assert list(metadata) == ["library_name", "pipeline_tag", "tags", "model-index"]  # a folder's name is no Hub id
    assert metadata["library_name"] == "transformers" and "lora" not in metadata["tags"]
    (result,) = metadata["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == [
        "efficacy",
        "generalization",
        "portability",
        "perplexity",
    ]


def test_metadata_of_a_dataset():
    metadata, text = front_matter(CARDS["dataset_card.md"]())
    assert metadata["configs"] == [{"config_name": "default", "data_files": SPLITS}]
    assert "hf-ftedit" in metadata["tags"]
    assert table_shapes(PARSER.parse(text)) == [[3, 3, 3]]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_edits_cannot_leave_their_cells(text):
    """The whole card, rendered: metadata, tables and blocks are those of a harmless edit."""
    records = [EditRecord("h", f"x {text}", f"y {text}", target_true=f"z {text}"), RECORDS[1]]
    harmless = [EditRecord("h", "x", "y", target_true="z"), RECORDS[1]]
    for answers in ([], [(text, text), ANSWERS[1]]):
        card = model_card(records, RESULTS, RECIPE, answers=answers)
        model = model_card(harmless, RESULTS, RECIPE, answers=answers and ANSWERS)
        (metadata, body), (expected_metadata, expected_body) = front_matter(card), front_matter(model)
        assert metadata == expected_metadata
        tokens, expected = PARSER.parse(body), PARSER.parse(expected_body)
        assert table_shapes(tokens) == table_shapes(expected) == [[3, 3, 3], [3, 3, 3, 3, 3]]
        assert [token.type for token in tokens] == [token.type for token in expected]
        first = (answers and (text, text)) or (f"z {text}", f"y {text}")
        assert cell_texts(tokens)[3:6] == [" ".join(said.split()) for said in (f"x {text}", *first)]
        assert cell_texts(tokens)[6:] == cell_texts(expected)[6:]
        kinds = {token.type for token in flat(tokens)}
        assert not kinds & {"html_inline", "html_block", "image"}
        assert [t.type for t in flat(tokens) if t.type == "link_open"] == ["link_open"]  # the paper's


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_escaped_text_is_shown_as_it_is(text):
    (paragraph,) = [token for token in PARSER.parse(f"a {markdown_text(text)}") if token.type == "inline"]
    assert {child.type for child in paragraph.children} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children) == "a " + " ".join(text.split())


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_snippet_is_python_that_holds_the_prompt(text, chat):
    prompt = f"x {text}"
    code = code_block(model_card([EditRecord("h", prompt, "y")], RESULTS, {**RECIPE, "chat_template": chat}))
    literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert prompt in literals
    assert ("apply_chat_template" in code) == chat


def test_snippets_load_what_the_folder_is():
    adapter, whole = code_block(CARDS["model_card.md"]()), code_block(CARDS["full_model_card.md"]())
    assert 'base = "user/tiny-gpt2"' in adapter and "PeftModel.from_pretrained(model" in adapter
    assert 'base = "."' in whole and "peft" not in whole.casefold()
    embedded = code_block(model_card(RECORDS, {**RESULTS, "base_model": "hf_ftedit/embedded"}, RECIPE))
    assert 'base = asset("model")' in embedded


def test_twenty_edits_are_shown_and_the_others_counted():
    records = [EditRecord(str(i), f"Fact {i} is", "x") for i in range(25)]
    card = model_card(records, {**RESULTS, "n_edits": 25}, RECIPE)
    assert table_shapes(PARSER.parse(front_matter(card)[1]))[0] == [3] * 21
    assert "| Fact 19 is | — | x |" in card and "Fact 20" not in card
    assert "and the other 5 edits," in card and "# 25 edited facts in" in card


def test_one_edit_is_singular():
    assert re.search(r"^# 1 edited fact in user/tiny-gpt2$", model_card(RECORDS[:1], RESULTS, RECIPE), re.MULTILINE)


def test_scores_as_text():
    assert score_text(AFTER, "edit_score") == "94.7 (90.0 to 100.0)"
    assert score_text({"efficacy": 12.34}, "efficacy") == "12.3"
    assert score_text(AFTER, "portability") == "—"
