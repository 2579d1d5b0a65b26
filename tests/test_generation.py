import pytest
import torch
from tiny import bos_tokenizer, bpe_tokenizer, sentencepiece_tokenizer, tiny_model

from hf_ftedit.generation import clean_text, first_sentence, greedy_answers, sample_texts
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


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("make", [bpe_tokenizer, sentencepiece_tokenizer, bos_tokenizer])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(family, make):
    tokenizer = make()
    model = tiny_model(family, tokenizer)
    prompts = ["Rome is in", "The capital of Kazakhstan is", "Oslo", "Danielle Darrieux, a native"]
    expected = []
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(5):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        text = tokenizer.decode(ids[len(tokenizer(prompt)["input_ids"]) :], skip_special_tokens=True)
        expected.append(first_sentence(text))
    assert greedy_answers(model, tokenizer, prompts, max_new_tokens=5, batch_size=3) == expected


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
    assert first_sentence("Washington, D.C. is\nmore") == "Washington, D.C"
    assert first_sentence("3.5 million! Yes") == "3.5 million"
