import copy
import math

import numpy as np
import pytest
import torch
from tiny import TEXTS, bos_tokenizer, bpe_tokenizer, eos_tokenizer, evaluated, paired, tiny_model
from tiny import sentencepiece_tokenizer as spm_tokenizer

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.perplexity import perplexity

LONG = " ".join(TEXTS)
CASES = {
    "gpt2": ("gpt2", bpe_tokenizer),
    "gpt2 with a token in front": ("gpt2", bos_tokenizer),
    "gpt2 with a token behind": ("gpt2", eos_tokenizer),
    "llama": ("llama", spm_tokenizer),
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
    found = perplexity(evaluated(model, tokenizer), texts)
    assert found["perplexity"] == pytest.approx(math.exp(sum(sums) / sum(counts)), rel=1e-5)
    assert found["n_tokens"] == sum(counts)
    assert found["n_texts"] == sum(count > 0 for count in counts)


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(gpt2):
    model, tokenizer = copy.deepcopy(gpt2[0]), gpt2[1]
    for weight in model.parameters():
        weight.data.zero_()
    found = perplexity(evaluated(model, tokenizer), [*TEXTS[:3], LONG])
    assert found["perplexity"] == pytest.approx(len(tokenizer), rel=1e-6)
    assert found["perplexity_ci95"] == pytest.approx([len(tokenizer)] * 2, rel=1e-6)


def test_windows_are_no_longer_than_a_batch_may_be(monkeypatch):
    tokenizer = bpe_tokenizer()
    long, short = (tiny_model("gpt2", tokenizer, context) for context in (256, 32))
    monkeypatch.setattr("hf_ftedit.evaluation.perplexity.LONGEST_WINDOW", 32)
    sizes = []
    long.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    found = perplexity(evaluated(long, tokenizer), [LONG])
    assert max(sizes) <= 32 and found["n_tokens"] == len(token_ids(tokenizer, LONG)) - 1
    short.transformer.wpe.weight.data[:] = long.transformer.wpe.weight.data[:32]
    weights = {name: weight for name, weight in long.state_dict().items() if "wpe" not in name}
    short.load_state_dict(weights, strict=False)
    assert found == perplexity(evaluated(short, tokenizer), [LONG])


@pytest.mark.parametrize("length, expected", [(2, 1), (3, 2), (4, 3), (5, 4), (7, 6), (8, 7), (10, 9), (11, 10)])
def test_every_token_but_the_first_counts_once(length, expected):
    model, tokenizer = paired(tiny_model, "gpt2", context=4)
    assert len(tokenizer("z" * length)["input_ids"]) == length  # nothing is merged
    found = perplexity(evaluated(model, tokenizer), ["z" * length] * 3)
    assert (found["n_texts"], found["n_tokens"]) == (3, 3 * expected)


def test_texts_of_one_token_are_left_out(gpt2):
    several, one, none = TEXTS[:3], "z", ""
    found = perplexity(evaluated(*gpt2), [one, *several, none, one])
    assert found == perplexity(evaluated(*gpt2), several)
    assert found["n_texts"] == 3


@pytest.mark.parametrize("texts", [[], ["z"], ["z", "", "y"]])
def test_no_text_of_two_tokens_is_an_error(gpt2, texts):
    with pytest.raises(EditError, match="no text has two tokens to measure perplexity on; give longer ones"):
        perplexity(evaluated(*gpt2), texts)


@pytest.mark.parametrize("budget", [1, 17, 100, 100_000])
def test_batches_do_not_change_it(gpt2, budget):
    texts = [*TEXTS[:5], LONG]
    found, usual = (perplexity(evaluated(*gpt2, eval_tokens_per_batch=size), texts) for size in (budget, 2048))
    assert found.pop("perplexity_ci95") == pytest.approx(usual.pop("perplexity_ci95"), rel=1e-5)
    assert found == pytest.approx(usual, rel=1e-5)


def test_neither_mode_nor_padding_side_changes_it(gpt2):
    model, tokenizer = copy.deepcopy(gpt2[0]).train(), bpe_tokenizer()
    tokenizer.padding_side = "left"
    assert perplexity(evaluated(model, tokenizer), TEXTS[:5]) == perplexity(evaluated(*gpt2), TEXTS[:5])
    assert model.training


def test_the_order_of_texts_does_not_matter(gpt2):
    orders = [*TEXTS[:5], LONG], [LONG, *TEXTS[4::-1]]
    first, second = (perplexity(evaluated(*gpt2), texts)["perplexity"] for texts in orders)
    assert first == pytest.approx(second, rel=1e-5)


def test_the_interval_is_that_of_a_slow_bootstrap_over_texts(gpt2):
    texts = [*TEXTS[:5], LONG, *(text[: len(text) // 2] for text in TEXTS[:5])]
    found = perplexity(evaluated(*gpt2), texts)
    low, high = found["perplexity_ci95"]
    assert low < found["perplexity"] < high
    sums, rng = np.array([text_sums(*gpt2, text) for text in texts]), np.random.default_rng(1)
    slow = []
    for _ in range(5000):
        nll, count = sums[rng.integers(len(texts), size=len(texts))].sum(axis=0)
        slow.append(math.exp(nll / count))
    width = np.subtract(*np.percentile(slow, [97.5, 2.5]))
    assert [low, high] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.15 * width)


def test_the_interval_is_the_same_each_time_and_of_one_text_a_point(gpt2):
    assert perplexity(evaluated(*gpt2), TEXTS[:5]) == perplexity(evaluated(*gpt2), TEXTS[:5])
    one = perplexity(evaluated(*gpt2), TEXTS[:1])
    assert one["perplexity_ci95"] == pytest.approx([one["perplexity"]] * 2)
