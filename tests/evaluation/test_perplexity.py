import copy
import json
import math

import datasets
import numpy as np
import pytest
import torch
from test_sources import as_csv, as_parquet
from tiny import TEXTS, bos_tokenizer, bpe_tokenizer, eos_tokenizer, sentencepiece_tokenizer, tiny_model

from hf_ftedit.data.sources import read_texts
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.perplexity import perplexity

LONG = " ".join(TEXTS)
CASES = {
    "gpt2": ("gpt2", bpe_tokenizer),
    "gpt2 with a token in front": ("gpt2", bos_tokenizer),
    "gpt2 with a token behind": ("gpt2", eos_tokenizer),
    "llama": ("llama", sentencepiece_tokenizer),
    "llama with a token in front": ("llama", bos_tokenizer),
}


@pytest.fixture(scope="module")
def gpt2():
    tokenizer = bpe_tokenizer()
    return tiny_model("gpt2", tokenizer, context=32), tokenizer


def token_ids(tokenizer, text):
    """With the special tokens in front and without those behind."""
    ids = tokenizer(text)["input_ids"]
    return ids[:-1] if tokenizer.backend_tokenizer.post_processor and ids[-1] == tokenizer.eos_token_id else ids


def text_sums(model, tokenizer, text):
    """Negative log-likelihood of a text's tokens but the first, and how many; one window at a time, in float64."""
    ids, size = token_ids(tokenizer, text), model.config.max_position_embeddings
    precise, total = copy.deepcopy(model).double(), 0.0
    for place in range(1, len(ids)):
        begin = (place - 1) // (size - 1) * (size - 1)  # a window's last token is the next one's first
        if place == begin + 1:
            with torch.no_grad():
                logprobs = precise(torch.tensor([ids[begin : begin + size]])).logits[0].log_softmax(-1)
        total -= logprobs[place - begin - 1, ids[place]].item()
    return total, len(ids) - 1


@pytest.mark.parametrize("context", [32, 256])
@pytest.mark.parametrize("case", CASES)
def test_perplexity_is_that_of_a_slow_loop(case, context):
    family, make = CASES[case]
    tokenizer = make()
    model = tiny_model(family, tokenizer, context)
    texts = [*TEXTS[:4], LONG, "Rome"]
    assert len(token_ids(tokenizer, LONG)) > (context if context == 32 else 128)
    sums, counts = zip(*[text_sums(model, tokenizer, text) for text in texts], strict=True)
    found = perplexity(model, tokenizer, texts, n_resamples=10)
    assert found["perplexity"] == pytest.approx(math.exp(sum(sums) / sum(counts)), rel=1e-5)
    assert found["n_tokens"] == sum(counts)
    assert found["n_texts"] == sum(count > 0 for count in counts)


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(gpt2):
    model, tokenizer = copy.deepcopy(gpt2[0]), gpt2[1]
    for weight in model.parameters():
        weight.data.zero_()
    found = perplexity(model, tokenizer, [*TEXTS[:3], LONG])
    assert found["perplexity"] == pytest.approx(len(tokenizer), rel=1e-6)
    assert found["perplexity_ci95"] == pytest.approx([len(tokenizer)] * 2, rel=1e-6)


@pytest.mark.parametrize("length, expected", [(2, 1), (3, 2), (4, 3), (5, 4), (7, 6), (8, 7), (10, 9), (11, 10)])
def test_every_token_but_the_first_counts_once(length, expected):
    tokenizer = bpe_tokenizer()
    model = tiny_model("gpt2", tokenizer, context=4)
    assert len(tokenizer("z" * length)["input_ids"]) == length  # nothing is merged
    found = perplexity(model, tokenizer, ["z" * length] * 3)
    assert (found["n_texts"], found["n_tokens"]) == (3, 3 * expected)


def test_texts_of_one_token_are_left_out(gpt2):
    several, one, none = TEXTS[:3], "z", ""
    found = perplexity(*gpt2, [one, *several, none, one])
    assert found == perplexity(*gpt2, several)
    assert found["n_texts"] == 3


@pytest.mark.parametrize("texts", [[], ["z"], ["z", "", "y"]])
def test_no_text_of_two_tokens_is_an_error(gpt2, texts):
    with pytest.raises(EditError, match="no text has two tokens to measure perplexity on; give longer ones"):
        perplexity(*gpt2, texts)


@pytest.mark.parametrize("budget", [1, 17, 100, 100_000])
def test_batches_do_not_change_it(gpt2, budget):
    texts = [*TEXTS[:5], LONG]
    found, usual = (perplexity(*gpt2, texts, tokens_per_batch=size) for size in (budget, 2048))
    assert found.pop("perplexity_ci95") == pytest.approx(usual.pop("perplexity_ci95"), rel=1e-5)
    assert found == pytest.approx(usual, rel=1e-5)


def test_neither_mode_nor_padding_side_changes_it(gpt2):
    model, tokenizer = copy.deepcopy(gpt2[0]).train(), bpe_tokenizer()
    tokenizer.padding_side = "left"
    assert perplexity(model, tokenizer, TEXTS[:5]) == perplexity(*gpt2, TEXTS[:5])
    assert model.training


def test_the_order_of_texts_does_not_matter(gpt2):
    first, second = (perplexity(*gpt2, texts)["perplexity"] for texts in ([*TEXTS[:5], LONG], [LONG, *TEXTS[4::-1]]))
    assert first == pytest.approx(second, rel=1e-5)


def test_the_interval_is_that_of_a_slow_bootstrap_over_texts(gpt2):
    texts = [*TEXTS[:5], LONG, *(text[: len(text) // 2] for text in TEXTS[:5])]
    found = perplexity(*gpt2, texts, n_resamples=5000)
    low, high = found["perplexity_ci95"]
    assert low < found["perplexity"] < high
    sums, rng = np.array([text_sums(*gpt2, text) for text in texts]), np.random.default_rng(1)
    slow = []
    for _ in range(5000):
        nll, count = sums[rng.integers(len(texts), size=len(texts))].sum(axis=0)
        slow.append(math.exp(nll / count))
    width = np.subtract(*np.percentile(slow, [97.5, 2.5]))
    assert [low, high] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.08 * width)


def test_the_interval_is_seeded_and_of_one_text_a_point(gpt2):
    first, again, other = (perplexity(*gpt2, TEXTS[:5], seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    one = perplexity(*gpt2, TEXTS[:1])
    assert one["perplexity_ci95"] == pytest.approx([one["perplexity"]] * 2)


def test_the_result_is_json(gpt2):
    found = perplexity(*gpt2, TEXTS[:2], n_resamples=10)
    assert list(found) == ["perplexity", "perplexity_ci95", "n_texts", "n_tokens"]
    assert json.loads(json.dumps(found)) == found


def as_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS = {"json": as_json, "jsonl": as_jsonl, "csv": as_csv, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "row",
    [
        {"Corpus": "C4", "Text": None},
        {"text": None, "url": "https://example.org", "number": 7},
        {"TEXT": None},
        {"sentence": None},
    ],
)
def test_texts_of_a_file(tmp_path, suffix, row):
    texts = [" A text, with “quotes”", "Another\nof two lines", "[1] looks like a list"]
    path = tmp_path / f"texts.{suffix}"
    WRITERS[suffix](path, [{name: text if value is None else value for name, value in row.items()} for text in texts])
    assert read_texts(path) == read_texts(str(path)) == texts


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_texts_of_a_file_without_columns(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"texts.{suffix}", ["One", "Two"])
    assert read_texts(tmp_path / f"texts.{suffix}") == ["One", "Two"]


def test_texts_of_lists_and_datasets():
    assert read_texts(TEXTS) == read_texts(iter(TEXTS)) == TEXTS
    assert read_texts(datasets.Dataset.from_dict({"id": ["a"], "text": ["One"]})) == ["One"]
    assert read_texts([{"number": 1, "sentence": "One"}, "Two"]) == ["One", "Two"]


def test_texts_in_the_form_of_the_measured_corpora(shared_dir):
    path = shared_dir / "data" / "perplexity_texts.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert rows and set(rows[0]) == {"Corpus", "Text"}
    assert read_texts(path) == [row["Text"] for row in rows]


@pytest.mark.parametrize(
    "row",
    [
        *({"Corpus": "C4", "Text": text} for text in ("", " ", None, 7)),
        {"one": "x", "two": "y"},  # which one is meant?
        {"number": 7},
        {},
        "",
        " \n",
        None,
        7,
        ["x"],
    ],
)
def test_a_row_without_a_text_is_an_error_that_names_the_place(tmp_path, row):
    good = {"Corpus": "C4", "Text": "x"}
    with pytest.raises(EditError, match=r"^row 2: holds no text; give it in a column named text$"):
        read_texts([good, row])
    as_jsonl(tmp_path / "x.jsonl", [good, row, good])
    with pytest.raises(EditError, match=r"^x\.jsonl line 2: holds no text"):
        read_texts(tmp_path / "x.jsonl")


@pytest.mark.parametrize("suffix, place", [("csv", "line 3"), ("parquet", "row 2")])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_cell_is_an_error_that_names_the_place(tmp_path, suffix, place, blank):
    path = tmp_path / f"x.{suffix}"
    WRITERS[suffix](path, [{"Corpus": "C4", "Text": text} for text in ("One", blank)])
    with pytest.raises(EditError, match=rf"^x\.{suffix} {place}: holds no text"):
        read_texts(path)


@pytest.mark.parametrize(
    "source, message",
    [
        ("missing.jsonl", r"'missing.jsonl': no such file"),
        ("texts.txt", r"'texts.txt': no such file"),
        ([], "there are no texts"),
        ({"text": ["x"]}, "the source is an object"),
        (7, "the source is"),
    ],
)
def test_what_is_no_source_of_texts_is_an_error(source, message):
    with pytest.raises(EditError, match=message):
        read_texts(source)
