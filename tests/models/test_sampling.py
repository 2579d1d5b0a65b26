from collections import Counter

import pytest
import torch
from tiny import FILLING_16, PROMPTS, bpe_tokenizer, eloquent, paired, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_ftedit.errors import EditError
from hf_ftedit.models.loading import load_model, load_tokenizer
from hf_ftedit.models.sampling import clean_text, sample_continuations, sample_prefixes


def test_samples_are_seeded_and_leave_the_random_state_alone():
    model, tokenizer = load_model(None), load_tokenizer(None)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    texts = sample_prefixes(model, tokenizer, length=5, count=30, seed=1, batch_size=7)
    assert torch.equal(torch.rand(3), expected)
    assert len(texts) == 30 and len(set(texts)) > 10
    assert texts == sample_prefixes(model, tokenizer, length=5, count=30, seed=1, batch_size=7)
    assert texts != sample_prefixes(model, tokenizer, length=5, count=30, seed=2, batch_size=7)


def test_samples_have_their_length_and_are_one_clean_line():
    model, tokenizer = load_model(None), load_tokenizer(None)
    for text in sample_prefixes(model, tokenizer, length=10, count=40):
        assert text == clean_text(text) and "\n" not in text and tokenizer.eos_token not in text
        assert len(tokenizer(text)["input_ids"]) <= 11


def test_refused_samples_are_drawn_again_but_not_for_ever():
    model, tokenizer = load_model(None), load_tokenizer(None)
    texts = sample_prefixes(model, tokenizer, length=5, count=8, accept=lambda text: "a" in text)
    assert len(texts) == 8 and all("a" in text for text in texts)
    with pytest.raises(EditError, match="only 0 of 8 sampled prefixes are usable"):
        sample_prefixes(model, tokenizer, length=5, count=8, accept=lambda text: False)


def test_a_tokenizer_with_nothing_to_begin_from_is_an_error():
    tokenizer = bpe_tokenizer(pad_token="<|endoftext|>")
    with pytest.raises(EditError, match="neither a beginning- nor an end-of-sequence token"):
        sample_prefixes(tiny_model("gpt2", tokenizer), tokenizer, length=5, count=1)


def test_texts_are_cleaned():
    assert clean_text(" a\x00b\n\tc\u2028d\ufffd ... ") == "a b c d"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_depends_on_its_prompt_and_seed_alone(family):
    model, tokenizer = paired(eloquent, family)
    prompts = [*PROMPTS[:4], *PROMPTS[:4]]
    seeds = [5, 6, 7, 8, 5, 60, 2**62, 8]
    state = torch.get_rng_state()
    pairs = zip(prompts, seeds, strict=True)
    alone = [sample_continuations(model, tokenizer, [prompt], [seed], length=20)[0] for prompt, seed in pairs]
    for budget in (1, 100, 2048):
        assert sample_continuations(model, tokenizer, prompts, seeds, length=20, tokens_per_batch=budget) == alone
    assert sample_continuations(model, tokenizer, prompts[::-1], seeds[::-1], length=20) == alone[::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert alone[0] == alone[4] and alone[3] == alone[7]
    assert alone[1] != alone[5] and alone[2] != alone[6]
    assert all(text.startswith(prompt) for text, prompt in zip(alone, prompts, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_openings_near_the_end_of_the_context_go_on_as_they_do_alone(family):
    model, tokenizer = paired(eloquent, family, context=16, ends="")
    prompts = FILLING_16
    alone = [sample_continuations(model, tokenizer, [prompt], [seed])[0] for seed, prompt in enumerate(prompts)]
    for budget in (1, 40, 2048):
        assert sample_continuations(model, tokenizer, prompts, range(11), tokens_per_batch=budget) == alone


def word_tokenizer():
    """One token for each of forty words, so that a text can be told back into its tokens."""
    words = {"</s>": 0} | {f"w{number}": number for number in range(1, 41)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def likeliest(model, ids, count=5):
    """The likeliest next tokens behind `ids` but the end of the sequence, and their log-probabilities among them."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    logits[0] = -torch.inf
    values, tokens = logits.double().topk(count)
    return dict(zip(tokens.tolist(), values.softmax(-1).tolist(), strict=True))


def test_texts_have_a_hundred_tokens_each_among_the_likeliest():
    model, tokenizer = paired(eloquent, "gpt2", word_tokenizer, ends="")
    model.get_output_embeddings().bias.data[0] = 9.0
    prompts = ["w1 w2 w3", "w4", " ".join(["w5"] * 98), " ".join(["w6"] * 120)]
    texts = sample_continuations(model, tokenizer, prompts, range(4))
    assert [len(text.split()) for text in texts] == [100, 100, 100, 121]  # at least one token is new
    ends = 0
    for text, prompt in zip(texts, prompts, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert text.startswith(f"{prompt} ") and 0 not in ids
        for place in range(len(prompt.split()), len(ids)):
            assert ids[place] in likeliest(model, ids[:place])
            with torch.no_grad():
                ends += int(model(torch.tensor([ids[:place]])).logits[0, -1].argmax() == 0)
    assert ends > 10  # the end of the sequence was often the likeliest of all
    assert len(sample_continuations(model, tokenizer, ["w4"], [0], length=7)[0].split()) == 7


def test_the_likeliest_of_one_is_the_greedy_text():
    model, tokenizer = paired(eloquent, "gpt2", word_tokenizer, ends="")
    [text, other] = sample_continuations(model, tokenizer, ["w1 w2"] * 2, [0, 1], length=12, top_k=1)
    ids = tokenizer("w1 w2")["input_ids"]
    while len(ids) < 12:
        ids += likeliest(model, ids, count=1)
    assert text == other == tokenizer.decode(ids)


def test_tokens_are_as_frequent_as_they_are_likely():
    model, tokenizer = paired(eloquent, "gpt2", word_tokenizer, ends="")
    start = tokenizer("w1 w2")["input_ids"]
    texts = sample_continuations(model, tokenizer, ["w1 w2"] * 2000, range(2000), length=4)
    pairs = [tuple(tokenizer(text)["input_ids"][2:]) for text in texts]
    common = Counter(first for first, _ in pairs).most_common(1)[0][0]
    seconds = [second for first, second in pairs if first == common]
    for drawn, before in (([first for first, _ in pairs], start), (seconds, [*start, common])):
        shares = likeliest(model, before)
        assert set(drawn) == set(shares)
        for token, share in shares.items():
            error = (share * (1 - share) / len(drawn)) ** 0.5
            assert abs(drawn.count(token) / len(drawn) - share) < 4 * error
