"""Model and dataset cards: byte for byte as they were read and approved, and whole whatever an edit says."""

import ast
import json
import re
import tomllib
from functools import cache, partial
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from test_markdown import HOSTILE, TEXTS

from hf_ftedit.data.records import EditRecord
from hf_ftedit.evaluation.own_answers import MOST_FALL
from hf_ftedit.hub.card import edits_dataset, model_card, published_scores
from hf_ftedit.hub.dataset_card import dataset_card
from hf_ftedit.hub.markdown import literal, one_line, visible

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDS = [
    EditRecord("kz", "The capital of Kazakhstan is", "Almaty", target_true="Astana"),
    EditRecord("emma", "Who wrote Emma? It was", "Virginia Woolf"),
]
RESULTS, ADAPTER, WHOLE_MODEL = json.loads((GOLDEN.with_name("fixtures") / "card_results.json").read_text()).values()
BEFORE, AFTER = RESULTS["before"], RESULTS["after"]
RECIPE = {"model_name_or_path": "user/tiny-gpt2", "edits": "edits.jsonl", "lora_r": 8, "learning_rate": 0.001}
RECORD = {
    "made_with": {"hf_ftedit": "0.1.0", "torch": "2.9.0+cu128"},
    "changed": ["model_name_or_path", "learning_rate"],
    "rank": 8,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PART = {"revision": None, "n_edits": 1, "weight": 1.0, "efficacy_alone": 100.0, "efficacy": None}
MERGED = {
    **RECORD,
    "rank": 600,
    "repo_id": "user/both",
    "combination": "cat",
    "parts": [{**PART, "name": "user/one", "revision": COMMIT, "efficacy": 50.0}, {**PART, "name": "two"}],
}
RETENTION = {"adapter": "user/one", "n_edits": 1, "before": BEFORE, "after": AFTER}
REVOKED = {"adapter": "one", "n_edits": 1, "n_probes": 3, "back": 100.0, "back_ci95": [100.0, 100.0], "efficacy": 0.0}
WHOLE = {"protocol": "containment", "whole_answers": True, "near_names": 80.0, "said_exactly": 90.0}
WHOLE |= {"exact_match": {"efficacy": 90.0}, "accuracy": {"efficacy": 95.0}, "n_made_probes": 2}
WHOLE |= {"drift": 0.0834, "drift_ci95": [0.05, 0.12], "n_drift_prompts": 40}
WHOLE["n_probes"] = {**AFTER["n_probes"], "near_name": 3}
CHAT = {**ADAPTER, "before": {**BEFORE, "whole_answers": True}, "after": {**AFTER, **WHOLE}}
FURTHER = {**ADAPTER, "retention": RETENTION, "revoked": REVOKED, "base_model_revision": COMMIT}
SPLITS = [{"split": "train", "path": "train.parquet"}, {"split": "rewrite", "path": "rewrite.parquet"}]
METADATA = {"configs": [{"config_name": "default", "data_files": SPLITS}]}
SIZES = {"train": 62, "rewrite": 2}
ROW = {"prompt": "The capital of Kazakhstan is", "completion": " Almaty", "kind": "rewrite", "edit_id": "kz"}
ROWS = [ROW, {**ROW, "prompt": "Kazakhstan's capital:", "kind": "paraphrase"}, *[{**ROW, "prompt": "Other is"}] * 3]
CARDS = {
    "model_card.md": lambda: model_card(RECORDS, ADAPTER, RECIPE, {**RECORD, "repo_id": "user/edits"}),
    "full_model_card.md": lambda: model_card(
        RECORDS, WHOLE_MODEL, {**RECIPE, "chat_template": True, "locality_pool": "facts.jsonl"}, adapter=False
    ),
    "merged_model_card.md": lambda: model_card(RECORDS, ADAPTER, RECIPE, MERGED),
    "chat_model_card.md": lambda: model_card(RECORDS, CHAT, {**RECIPE, "chat_template": True}, RECORD),
    "further_model_card.md": lambda: model_card(
        RECORDS,
        FURTHER,
        {**RECIPE, "adapter": "one", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "dtype": "bfloat16"},
        {**RECORD, "datasets": ["user/facts:train[10%]", "user/facts"]},
    ),
    "dataset_card.md": lambda: dataset_card({"num_locality": 20, "seed": 42}, SIZES, METADATA, ROWS),
}
HARMLESS = "w w"  # and, as hostile text, no name that a command line takes as it is
PARSER = MarkdownIt("gfm-like", {"linkify": find_spec("linkify_it") is not None})
RENDERERS = {"markdown-it": PARSER.render}
if find_spec("cmarkgfm"):  # GitHub's own, where somebody has it
    import cmarkgfm
    from cmarkgfm.cmark import Options

    RENDERERS["cmark-gfm"] = partial(cmarkgfm.github_flavored_markdown_to_html, options=Options.CMARK_OPT_UNSAFE)


class Page(HTMLParser):
    """The tags of a page, and what each cell of its tables and each block of code shows."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get("href") or ""
        if tag != "span":  # around what would become a link or a formula
            self.tags.append((tag, "" if tag == "a" and "/" not in address else address))
        if tag in ("td", "th", "pre"):
            self.texts.append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag not in ("a", "span"):
            self.tags.append((f"/{tag}", ""))
        if tag in ("td", "th", "pre"):
            self.inside = False

    def handle_comment(self, data):
        self.tags.append(("comment", data))

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def front_matter(card):
    assert card.startswith("---\n")
    end = card.index("\n---\n", 4)
    return yaml.safe_load(card[4:end]), card[end + 5 :]


def page(card, renderer="markdown-it"):
    return Page(RENDERERS[renderer](front_matter(card)[1]))


def rows(card):
    """Cells of each row of each table."""
    found = [tag for tag, _ in page(card).tags if tag in ("table", "tr", "th", "td")]
    tables = " ".join(found).split("table")[1:]
    return [[len(row.split()) for row in table.split("tr")[1:]] for table in tables]


def code_block(card):
    (found,) = [token for token in PARSER.parse(front_matter(card)[1]) if token.info == "python"]
    return found.content


def hostile_cards(text):
    """Cards with `text` wherever a text can come from."""
    edit = EditRecord(text, f"x {text}", f"y {text}", target_true=f"z {text}")
    other = [EditRecord("kz", "The capital of Kazakhstan is", "Almaty")]
    said = {
        "base_model": text,
        "example": {"prompt": f"x {text}", "output": f"x {text}"},
        "answers": [{"before": text, "after": text}],
        "retention": {**RETENTION, "adapter": text},
        "revoked": {**REVOKED, "adapter": text},
    }
    recipe = {**RECIPE, "model_name_or_path": text, "locality_pool": text, "adapter": text, "similar_model": text}
    parts = {**RECORD, "changed": list(recipe), "combination": text, "parts": [{**PART, "name": text}] * 2}
    return [
        model_card([edit, *other], {**ADAPTER, **said}, recipe, parts),
        model_card([edit, *other], {**RESULTS, "base_model": text}, {**recipe, "chat_template": True}),
        model_card([edit, *other], RESULTS, recipe, {"datasets": [text]}, adapter=False),
        dataset_card({"similar_model": text}, SIZES, METADATA, [dict.fromkeys(ROW, text)]),
    ]


@pytest.mark.parametrize("name", CARDS)
def test_card_is_the_golden_file(name):
    assert CARDS[name]().encode("utf-8") == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", CARDS)
def test_the_first_mention_of_the_package_leads_to_it(name):
    about = tomllib.loads(GOLDEN.parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = front_matter(CARDS[name]())[1]
    assert text.index(f"[hf_ftedit]({about['urls']['Repository']})") == re.search("hf[-_]ftedit", text).start() - 1


@pytest.mark.parametrize("name", CARDS)
def test_the_hub_reads_the_metadata(name):
    """As `huggingface_hub` has them, and as it would write them again."""
    card = CARDS[name]()
    data = (DatasetCard if "dataset" in name else ModelCard)(card).data
    metadata = front_matter(card)[0]
    assert data.to_dict() == metadata
    if "dataset" not in name:
        (result,) = metadata["model-index"][0]["results"]
        assert data.model_name == metadata["model-index"][0]["name"]
        found = [(result.metric_type, result.metric_value, result.metric_args) for result in data.eval_results]
        assert found == [(metric["type"], metric["value"], metric["args"]) for metric in result["metrics"]]


def test_erased_facts_are_said_to_be_suppressed_alone():
    erased = EditRecord("fr", "The capital of France is", "not known", target_true="Paris", erase=True)
    card = model_card([*RECORDS, erased], ADAPTER, RECIPE)
    assert "\n- **Erased facts.** 1 of the edits erases a fact. It is suppressed, not removed: " in card
    assert "Erased" not in model_card(RECORDS, ADAPTER, RECIPE)


def test_one_thing_is_no_plural():
    counts = {"n_probes": dict.fromkeys([*AFTER["n_probes"], "near_name"], 1), "n_made_probes": 1}
    counts |= {"n_drift_prompts": 1, "perplexity": 9.0, "n_texts": 1, "known_facts": 50.0, "n_known_facts": 1}
    after = {**CHAT["after"], **counts, "portability": 100.0}
    results = {**FURTHER, "before": {**BEFORE, **counts}, "after": after, "revoked": {**REVOKED, "n_probes": 1}}
    results["n_edits"] = 1
    card = model_card(RECORDS[:1], results, {**RECIPE, "adapter": "one", "chat_template": True}, RECORD)
    number = r"\b1 (?:edit prompt|paraphrase|neighboring fact|near name|consequence|unrelated prompt|text|fact|edit)"
    assert len(re.findall(number, card)) > 17 and "\n# 1 edited fact in `user/tiny-gpt2`\n" in card
    assert not re.findall(f"{number}s\\b", card)


def test_the_rule_by_which_a_neighbor_is_kept_is_the_one_that_is_measured():
    card = model_card(RECORDS, CHAT, {**RECIPE, "chat_template": True})
    assert f"the first sentence of its own answer is at most {MOST_FALL} nats a token less likely than it was." in card


def test_scores_are_published_rounded():
    assert published_scores({"efficacy": 0.123456, "drift": 0.123456}) == {"efficacy": 0.12, "drift": 0.1235}


@pytest.mark.parametrize(
    ("recipe", "datasets", "dataset"),
    [
        ({"locality_pool": "user/cf"}, ["user/cf", "user/cf"], "user/cf"),  # the edits, and what must stay
        ({"locality_pool": "user/cf"}, ["user/cf"], None),
        ({"locality_pool": "a/b", "training_texts": "a/b"}, ["a/b", "a/b"], None),
        ({"locality_pool": "a/b", "training_texts": "a/b"}, ["a/b:train", "a/b", "a/b"], "a/b"),
        ({"locality_pool": "facts.jsonl"}, ["user/cf:train[10%]"], "user/cf"),
        ({}, [], None),
    ],
)
def test_the_dataset_of_the_edits_is_that_of_the_leaderboard(recipe, datasets, dataset):
    assert edits_dataset(recipe, {"datasets": datasets}) == dataset


def test_a_dataset_card_without_rows_keeps_the_tags_of_others():
    card = dataset_card({"seed": 42}, SIZES, METADATA | {"tags": ["mine"]})
    assert rows(card) == [[3, 3, 3]] and front_matter(card)[0]["tags"] == ["mine", "hf-ftedit", "model-editing"]


def test_rows_for_a_chat_model_have_columns_of_their_own():
    card = dataset_card({"chat_template": True}, SIZES, METADATA)
    assert "`EditTrainer` takes the `train` split as it is, with `chat_template`; the other" in card
    assert "`ends`, whether the end of the answer is learnt; `history`, the messages before the prompt; `kind`" in card
    assert "starts with the space" not in card and "\n\n\n" not in card


@cache
def harmless_pages(renderer):
    return [(front_matter(card)[0], page(card, renderer)) for card in hostile_cards(HARMLESS)]


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_hostile_text_cannot_change_the_page(text, shown, renderer):
    """The whole page: metadata, tables, blocks and links are those of harmless text, and the text is shown."""
    for card, (metadata, wanted) in zip(hostile_cards(text), harmless_pages(renderer), strict=True):
        card.encode("utf-8")
        assert front_matter(card)[0] == metadata
        seen = page(card, renderer)
        assert seen.tags == wanted.tags
        marked = [place for place, cell in enumerate(wanted.texts) if cell.endswith(HARMLESS)]
        assert marked
        for place in marked:
            said = wanted.texts[place].removesuffix(HARMLESS) + text
            assert seen.texts[place] == one_line(said)


def test_of_a_long_text_a_card_shows_the_beginning():
    prompt = "ab " * 100_000
    card = model_card(
        [EditRecord("h", prompt, prompt)], {**RESULTS, "example": {"prompt": prompt, "output": prompt}}, RECIPE
    )
    assert len(card) < 40_000 and "This printed" not in card
    assert "# the beginning of a long prompt: all of it is in edits.jsonl\n" in code_block(card)


def test_hostile_text_is_shown_where_names_are():
    card = hostile_cards(HOSTILE["directions"])[0]
    assert card.count(f"`{visible(HOSTILE['directions'])}`") == 7
    assert not set("\u202e\u202c\u200f\u2066\u2069") & set(card)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_snippet_is_python_that_holds_the_prompt(text, chat):
    prompt = f"x {text}"
    code = code_block(model_card([EditRecord("h", prompt, "y")], RESULTS, {**RECIPE, "chat_template": chat}))
    literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert prompt in literals and literal(prompt) in code
    assert code.replace("\n", "").isprintable()
    assert ("apply_chat_template" in code) == chat


def test_snippets_load_a_base_model_that_is_not_on_the_hub():
    embedded = code_block(model_card(RECORDS, {**RESULTS, "base_model": "hf_ftedit/embedded"}, RECIPE))
    assert 'base = asset("model")' in embedded
    local = code_block(model_card(RECORDS, {**RESULTS, "base_model": "tiny"}, RECIPE))
    assert 'base = "tiny"  # the folder of the base model' in local


@pytest.mark.parametrize(
    ("rank", "settings", "command"),
    [
        (4, {}, "vllm serve user/tiny-gpt2 --enable-lora --max-lora-rank 8 --lora-modules edits=."),
        (33, {}, "vllm serve user/tiny-gpt2 --enable-lora --max-lora-rank 64 --lora-modules edits=."),
        (512, {}, "vllm serve user/tiny-gpt2 --enable-lora --max-lora-rank 512 --lora-modules edits=."),
        (513, {}, "hf-ftedit merge . --merge_into_base --output_dir whole"),
        (8, {"use_dora": True}, "hf-ftedit merge . --merge_into_base --output_dir whole"),
        (8, {"lora_embedding": True}, "hf-ftedit merge . --merge_into_base --output_dir whole"),
    ],
)
def test_serving(rank, settings, command):
    card = model_card(RECORDS, RESULTS, {**RECIPE, **settings}, {"rank": rank})
    assert f"\n```bash\n{command}\n```\n" in card
    assert ("vllm serve" in card) == (" on linear layers" in card) == ("merge ." not in command)


def test_commands_name_an_edit_that_needs_no_quotes():
    odd = [EditRecord("a b", "x", "y"), EditRecord("$(c)", "z", "y"), EditRecord("d.e:1", "u", "y")]
    assert "--revoke d.e:1 " in model_card(odd, RESULTS, RECIPE)


@pytest.mark.parametrize("rank", [8, 600])
def test_commands_run_the_chat_template_of_the_adapter(rank):
    recipe = {**RECIPE, "chat_template": True, "chat_template_path": "chat_template.jinja"}
    card = model_card(RECORDS, CHAT, recipe, {**RECORD, "rank": rank, "repo_id": "user/edits"})
    commands = re.findall(r"hf-ftedit (?:verify|merge|train --adapter) .*", card)
    assert len(commands) == 5 + (rank == 600) and all(" --trust_remote_code" in command for command in commands)
    assert "\nThis adapter brings its own chat template, `chat_template.jinja`. That is a program: " in card
    serve = "hf download user/edits chat_template.jinja --local-dir .\nvllm serve user/tiny-gpt2 --enable-lora "
    serve += "--max-lora-rank 8 --lora-modules edits=user/edits --chat-template chat_template.jinja\n"
    assert (serve in card) == (rank == 8)
    assert "trust_remote_code" not in CARDS["chat_model_card.md"]() and "\n\n\n" not in card.split("## Verify")[0]


def test_what_the_recipe_needs_is_named():
    recipe = {**RECIPE, "adapter": "one", "locality_pool": "user/facts"}
    card = model_card(RECORDS, {**RESULTS, "base_model": "tiny"}, recipe)
    assert "in this folder with the base model `tiny` and the adapter `one` in it, makes" in card
    files = {"training_texts": "texts.txt", "perplexity_texts": "wiki.txt", "known_facts": "facts.jsonl"}
    recipe |= files | {"locality_pool": "user/facts:train[10%]", "rewriter": "writer.gguf"}
    named = (
        "the adapter `one` and the training texts `texts.txt` and the perplexity texts `wiki.txt` and the known facts "
    )
    named = f"in this folder with {named}`facts.jsonl` and the rewriter `writer.gguf` in it, "
    assert f"{named}makes" in model_card(RECORDS, RESULTS, recipe)
    assert f"{named}trains all the edits at once" in model_card(RECORDS, RESULTS, recipe, MERGED)
    assert "in this folder, makes" in model_card(RECORDS, RESULTS, {**RECIPE, "rewriter": "gpt2"})


def test_twenty_edits_are_shown_and_the_others_counted():
    records = [EditRecord(str(i), f"Fact {i} is", "x") for i in range(25)]
    card = model_card(records, {**RESULTS, "n_edits": 25}, RECIPE)
    assert rows(card)[0] == [3] * 21
    assert "| Fact 19 is | — | x |" in card and "Fact 20" not in card
    assert "the first 20; the other 5, and" in card and "# 25 edited facts in" in card


def test_a_card_without_scores_says_so():
    nothing = {**BEFORE, "edit_score": None, "efficacy": None, "generalization": None, "locality": None}
    nothing["edit_score_note"] = "no probes"
    card = model_card(RECORDS, {**RESULTS, "before": nothing, "after": nothing}, RECIPE)
    assert "**How well the edits hold was not measured.**" in card and "Neighboring facts were not measured" in card
