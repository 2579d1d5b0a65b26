from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import bos_tokenizer, bpe_tokenizer, sentencepiece_tokenizer, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_ftedit.answers import first_sentence
from hf_ftedit.generation import _SentenceEnded, clean_text, greedy_answers, sample_texts, sampled_texts
from hf_ftedit.loading import load_model, load_tokenizer
from hf_ftedit.records import EditError


def test_samples_are_seeded_and_leave_the_random_state_alone():
    model, tokenizer = load_model(None), load_tokenizer(None)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    texts = sample_texts(model, tokenizer, length=5, count=30, seed=1, batch_size=7)
    assert torch.equal(torch.rand(3), expected)
    assert len(texts) == 30 and len(set(texts)) > 10
    assert texts == sample_texts(model, tokenizer, length=5, count=30, seed=1, batch_size=7)
    assert texts != sample_texts(model, tokenizer, length=5, count=30, seed=2, batch_size=7)


def test_samples_have_their_length_and_are_one_clean_line():
    model, tokenizer = load_model(None), load_tokenizer(None)
    for text in sample_texts(model, tokenizer, length=10, count=40):
        assert text == clean_text(text) and "\n" not in text and tokenizer.eos_token not in text
        assert len(tokenizer(text)["input_ids"]) <= 11


def test_refused_samples_are_drawn_again_but_not_for_ever():
    model, tokenizer = load_model(None), load_tokenizer(None)
    texts = sample_texts(model, tokenizer, length=5, count=8, accept=lambda text: "a" in text)
    assert len(texts) == 8 and all("a" in text for text in texts)
    with pytest.raises(EditError, match="only 0 usable prefixes of 8"):
        sample_texts(model, tokenizer, length=5, count=8, accept=lambda text: False)


def test_a_tokenizer_with_nothing_to_begin_from_is_an_error():
    tokenizer = bpe_tokenizer(pad_token="<|endoftext|>")
    with pytest.raises(EditError, match="neither a beginning- nor an end-of-sequence token"):
        sample_texts(tiny_model("gpt2", tokenizer), tokenizer, length=5, count=1)


def answer(model, tokenizer, prompt, tokens):
    """The greedy answer to one prompt, token by token, without `generate`, batches, caches or stopping early."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return first_sentence(tokenizer.decode(ids[start:], skip_special_tokens=True).rstrip("\ufffd"))


TOKENIZER = bpe_tokenizer()
PROMPTS = ["Rome is in", "The capital of Kazakhstan is", "Oslo", "Danielle Darrieux, a native"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("make", [bpe_tokenizer, sentencepiece_tokenizer, bos_tokenizer])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(family, make):
    tokenizer = make()
    model = tiny_model(family, tokenizer)
    expected = [answer(model, tokenizer, prompt, 5) for prompt in PROMPTS]
    assert greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=5, tokens_per_batch=40) == expected


MORE = [*PROMPTS, "Bergen", "French", "Peru is in the", "user", "The border of", "Oslo lies", "abc", "Kazakhstan"]


def eloquent(family, tokenizer, context=256, ends=".!?Ċ"):
    """A random model that goes on differently behind every prompt, and ends lines, sentences and texts."""
    model = tiny_model(family, tokenizer, context)
    torch.manual_seed(4)
    head = torch.nn.Linear(model.get_output_embeddings().in_features, len(tokenizer))
    model.set_output_embeddings(head)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.5 if weight is head.weight else 0.15)
        head.bias.zero_()
        head.bias[[*tokenizer.convert_tokens_to_ids(list(ends)), tokenizer.eos_token_id]] = 4.0
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_long_answers_end_with_their_first_sentence(family):
    tokenizer = bpe_tokenizer()
    model = eloquent(family, tokenizer)
    expected = [answer(model, tokenizer, prompt, 32) for prompt in MORE]
    assert greedy_answers(model, tokenizer, MORE, max_new_tokens=32, tokens_per_batch=200) == expected
    assert greedy_answers(model, tokenizer, MORE[::-1], max_new_tokens=32) == expected[::-1]
    assert len({len(said) for said in expected}) > 6


def test_an_answer_that_is_over_is_not_waited_for():
    model, passes = eloquent("llama", TOKENIZER), []
    model.get_output_embeddings().bias.data[TOKENIZER.eos_token_id] = -99.0  # only sentences and lines end
    model.register_forward_hook(lambda *args: passes.append(args))
    for prompt in MORE:
        begin, full = len(passes), answer(model, TOKENIZER, prompt, 32)
        assert len(passes) == begin + 32
        assert greedy_answers(model, TOKENIZER, [prompt], max_new_tokens=32) == [full]
    assert len(passes) < 1.8 * 32 * len(MORE)


@settings(deadline=None)
@given(st.text(alphabet="MrStPJ3.!?。 \n\t\u2028é", max_size=30))
def test_no_answer_is_stopped_before_its_first_sentence_is_over(text):
    tokenizer = TOKENIZER
    ids = torch.tensor([[0, 0, 0, *tokenizer(text)["input_ids"]]])
    over = _SentenceEnded(tokenizer, start=3)
    for end in range(3, ids.shape[1] + 1):
        [said, whole] = tokenizer.batch_decode([ids[0, 3:end], ids[0, 3:]])
        if over(ids[:, :end], None).item():
            assert first_sentence(said) == first_sentence(whole)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
@pytest.mark.parametrize("tokens_per_batch", [1, 40, 2048])
def test_prompts_near_the_end_of_the_context_get_what_they_get_alone(family, tokens_per_batch):
    tokenizer = bpe_tokenizer()
    model = eloquent(family, tokenizer, context=16, ends="")
    prompts = [
        letter * length for letter, length in zip("abcdefghijk", [1, 4, 7, 8, 9, 12, 13, 14, 15, 15, 2], strict=True)
    ]
    sizes = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    assert sizes[-2:] == [15, 2]
    expected = [
        answer(model, tokenizer, prompt, min(8, 16 - size)) for prompt, size in zip(prompts, sizes, strict=True)
    ]
    assert len(set(expected)) > 8
    assert greedy_answers(model, tokenizer, prompts, tokens_per_batch=tokens_per_batch) == expected
    texts = sampled_texts(model, tokenizer, prompts, range(11), tokens_per_batch=tokens_per_batch)
    assert texts == [sampled_texts(model, tokenizer, [prompt], [seed])[0] for seed, prompt in enumerate(prompts)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_depends_on_its_prompt_and_seed_alone(family):
    tokenizer = bpe_tokenizer()
    model = eloquent(family, tokenizer)
    prompts = [*PROMPTS, *PROMPTS]
    seeds = [5, 6, 7, 8, 5, 60, 2**62, 8]
    state = torch.get_rng_state()
    alone = [
        sampled_texts(model, tokenizer, [prompt], [seed], length=40)[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    for budget in (1, 100, 2048):
        assert sampled_texts(model, tokenizer, prompts, seeds, length=40, tokens_per_batch=budget) == alone
    assert sampled_texts(model, tokenizer, prompts[::-1], seeds[::-1], length=40) == alone[::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert alone[0] == alone[4] and alone[3] == alone[7]
    assert alone[1] != alone[5] and alone[2] != alone[6]
    assert all(text.startswith(prompt) for text, prompt in zip(alone, prompts, strict=True))


@pytest.mark.parametrize(
    "habits",
    [
        {"do_sample": True, "temperature": 0.2, "top_p": 0.1, "top_k": 2},
        {"repetition_penalty": 1.3},  # as Qwen2.5's chat models have
        {"no_repeat_ngram_size": 2},
        {"num_beams": 2},
    ],
    ids=lambda habits: next(iter(habits)),
)
def test_a_models_habits_of_generation_are_not_its_knowledge(habits):
    model = eloquent("llama", TOKENIZER)
    expected = greedy_answers(model, TOKENIZER, MORE), sampled_texts(model, TOKENIZER, MORE, range(12), length=20)
    model.generation_config.update(**habits)
    found = greedy_answers(model, TOKENIZER, MORE), sampled_texts(model, TOKENIZER, MORE, range(12), length=20)
    assert found == expected


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
    tokenizer = word_tokenizer()
    model = eloquent("gpt2", tokenizer, ends="")
    model.get_output_embeddings().bias.data[0] = 9.0
    prompts = ["w1 w2 w3", "w4", " ".join(["w5"] * 98), " ".join(["w6"] * 120)]
    texts = sampled_texts(model, tokenizer, prompts, range(4))
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
    assert len(sampled_texts(model, tokenizer, ["w4"], [0], length=7)[0].split()) == 7


def test_the_likeliest_of_one_is_the_greedy_text():
    tokenizer = word_tokenizer()
    model = eloquent("gpt2", tokenizer, ends="")
    [text, other] = sampled_texts(model, tokenizer, ["w1 w2"] * 2, [0, 1], length=12, top_k=1)
    ids = tokenizer("w1 w2")["input_ids"]
    while len(ids) < 12:
        ids += likeliest(model, ids, count=1)
    assert text == other == tokenizer.decode(ids)


def test_tokens_are_as_frequent_as_they_are_likely():
    tokenizer = word_tokenizer()
    model = eloquent("gpt2", tokenizer, ends="")
    start = tokenizer("w1 w2")["input_ids"]
    texts = sampled_texts(model, tokenizer, ["w1 w2"] * 2000, range(2000), length=4)
    pairs = [tuple(tokenizer(text)["input_ids"][2:]) for text in texts]
    common = Counter(first for first, _ in pairs).most_common(1)[0][0]
    seconds = [second for first, second in pairs if first == common]
    for drawn, before in (([first for first, _ in pairs], start), (seconds, [*start, common])):
        shares = likeliest(model, before)
        assert set(drawn) == set(shares)
        for token, share in shares.items():
            error = (share * (1 - share) / len(drawn)) ** 0.5
            assert abs(drawn.count(token) / len(drawn) - share) < 4 * error


def test_the_embedded_model_answers_its_facts():
    answers = greedy_answers(
        load_model(None), load_tokenizer(None), ["The capital of France is", "The symbol of iron is"]
    )
    assert answers[0] == "Paris"


def test_a_prompt_that_fills_the_context_is_an_error():
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match="fills the model's context"):
        greedy_answers(tiny_model("gpt2", tokenizer, context=4), tokenizer, ["The capital of Kazakhstan is"])


def test_texts_are_cleaned():
    assert clean_text(" a\x00b\n\tc\u2028d\ufffd ... ") == "a b c d"
    assert first_sentence(" Paris. It is") == "Paris"
    assert first_sentence("Washington, D.C. is\nmore") == "Washington, D.C. is"
    assert first_sentence("3.5 million! Yes") == "3.5 million"


def test_an_answer_does_not_end_within_a_character(monkeypatch):
    tokenizer = bpe_tokenizer()
    part = tokenizer("青藏", add_special_tokens=False).input_ids[:-1]  # the last byte is missing
    assert tokenizer.decode(part).endswith("\ufffd")
    monkeypatch.setattr(
        "hf_ftedit.generation._generate", lambda model, tokenizer, ids, *rest, **how: [part] * len(ids)
    )
    assert greedy_answers(tiny_model("gpt2", tokenizer), tokenizer, ["a"]) == ["青"]
