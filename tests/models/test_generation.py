import copy
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import (
    FILLING_16,
    PROMPTS,
    bos_tokenizer,
    bpe_tokenizer,
    chat_tokenizer,
    eloquent,
    moved,
    paired,
    sentencepiece_tokenizer,
    tiny_model,
)

import hf_ftedit.models.generation
from hf_ftedit.errors import EditError
from hf_ftedit.models.generation import (
    Answer,
    _SentenceEnded,
    continued_text,
    first_sentence,
    greedy_answers,
    keeping_answers,
    whole_answers,
)
from hf_ftedit.models.sampling import sample_continuations

SENTENCES = st.text(st.sampled_from("ab A.!?\n 。3é")) | st.text()
TOKENIZER = bpe_tokenizer()
FIXTURES = Path(__file__).parents[1] / "fixtures"
BY_HAND = json.loads((FIXTURES / "texts_by_hand.json").read_text(encoding="utf-8"))["first_sentence"]


def greedy_tokens(model, ids, tokens, end):
    """What follows `ids`, token by token, without `generate`, batches, caches or stopping early."""
    start, ids = len(ids), list(ids)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == end:
            break
    return ids[start:]


def answer(model, tokenizer, prompt, tokens):
    """The greedy answer to one prompt, with what stands before it in place of a space."""
    ids = greedy_tokens(model, tokenizer(prompt)["input_ids"], tokens, tokenizer.eos_token_id)
    said = tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")
    before, text = said[: len(said) - len(said.lstrip())], first_sentence(said)
    return before + text if text and before != " " else text


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("make", [bpe_tokenizer, sentencepiece_tokenizer, bos_tokenizer])
def test_greedy_answers_are_those_of_one_prompt_at_a_time(family, make):
    model, tokenizer = paired(tiny_model, family, make)
    expected = [answer(model, tokenizer, prompt, 5) for prompt in PROMPTS[:4]]
    assert greedy_answers(model, tokenizer, PROMPTS[:4], max_new_tokens=5, tokens_per_batch=40) == expected


def test_long_answers_end_with_their_first_sentence():
    model = eloquent("gpt2", TOKENIZER)
    expected = [answer(model, TOKENIZER, prompt, 32) for prompt in PROMPTS]
    assert greedy_answers(model, TOKENIZER, PROMPTS, max_new_tokens=32, tokens_per_batch=200) == expected
    assert greedy_answers(model, TOKENIZER, PROMPTS[::-1], max_new_tokens=32) == expected[::-1]
    assert len({len(said) for said in expected}) > 6


def test_a_first_sentence_ends_the_answer_where_nothing_stands_behind_it():
    model, end = eloquent("llama", TOKENIZER), TOKENIZER.eos_token_id
    expected = []
    for prompt in PROMPTS:
        tokens = greedy_tokens(model, TOKENIZER(prompt)["input_ids"], 32, end)
        text = TOKENIZER.decode(tokens, skip_special_tokens=True).rstrip("\ufffd").lstrip()
        said = first_sentence(text)
        expected.append((said, tokens[-1] == end and text in (said, *(said + mark for mark in ".!?"))))
    answers = whole_answers(model, TOKENIZER, PROMPTS, sentences=True, tokens_per_batch=200)
    assert [(answer.text, answer.ended) for answer in answers] == expected
    assert {ended for _, ended in expected} == {True, False}
    texts = [text for text, _ in expected]
    assert greedy_answers(model, TOKENIZER, PROMPTS, max_new_tokens=32) == texts


@pytest.mark.parametrize("is_known_end", [True, False])
def test_whole_answers_end_with_the_turn(is_known_end):
    model, tokenizer = paired(eloquent, "llama", chat_tokenizer)
    end = tokenizer.eos_token_id
    model.get_output_embeddings().bias.data[[0, end]] = torch.tensor([-99.0, 9.0])
    if not is_known_end:  # as of a base model's settings that a chat model came to keep
        tokenizer.eos_token, model.generation_config.eos_token_id = "<|endoftext|>", 0
    expected = []
    for prompt in PROMPTS:
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        tokens = greedy_tokens(model, ids, 8, end)
        ended = tokens[-1] == end
        text = tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd").strip()
        expected.append(Answer(text, tokens, ended))
    settings = {"max_new_tokens": 8, "chat_template": True, "tokens_per_batch": 100}
    assert whole_answers(model, tokenizer, PROMPTS, **settings) == expected
    assert {answer.ended for answer in expected} == {True, False}


@pytest.mark.parametrize(
    ("family", "is_run_once"), [("llama", True), ("gpt2", True), ("qwen3", True), ("bloom", False)]
)
def test_what_prompts_begin_with_is_run_once(family, is_run_once):
    model, tokenizer = paired(eloquent, family)
    front = "The capital of Japan is Tokyo, and the capital of France is Paris. "
    prompts = [front + prompt for prompt in ("Rome is in", "Of all the cities in the north, I like most of all", "So")]
    expected = [answer(model, tokenizer, prompt, 12) for prompt in prompts]
    widths = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: widths.append(args[0].shape))
    greedy_answers(model, tokenizer, prompts, max_new_tokens=12)  # finds out whether the model reads trees
    widths.clear()
    assert greedy_answers(model, tokenizer, prompts, max_new_tokens=12) == expected
    hook.remove()
    ids = tokenizer(prompts)["input_ids"]
    shared = len(os.path.commonprefix(ids))
    longest = max(map(len, ids))
    assert widths[:2] == [(1, shared), (3, longest - shared)] if is_run_once else widths[0] == (3, longest)


def test_kept_answers_are_asked_for_once_of_the_same_unedited_model(monkeypatch):
    tokenizer = bpe_tokenizer()
    model, other = eloquent("gpt2", tokenizer), eloquent("llama", tokenizer)
    runs = []
    generate = hf_ftedit.models.generation.generated_tokens
    counting = lambda *args, **settings: runs.append(args[0]) or generate(*args, **settings)  # noqa: E731
    monkeypatch.setattr("hf_ftedit.models.generation.generated_tokens", counting)
    free = whole_answers(model, tokenizer, PROMPTS)
    n = len(runs)
    with keeping_answers({}):
        assert whole_answers(model, tokenizer, PROMPTS) == whole_answers(model, tokenizer, PROMPTS) == free
        assert len(runs) == 2 * n
        assert whole_answers(other, tokenizer, PROMPTS) != free  # another model
        assert len(whole_answers(model, tokenizer, PROMPTS[:3])) == 3 and len(runs) > 3 * n  # other prompts
        ending, n = bpe_tokenizer(), len(runs)
        ending.eos_token = ending.convert_ids_to_tokens(free[0].tokens[0])
        assert whole_answers(model, ending, PROMPTS)[0].text == "" and len(runs) > n  # another end
        edited, n = moved(model), len(runs)
        assert whole_answers(edited, tokenizer, PROMPTS) != free and len(runs) > n
    n = len(runs)
    whole_answers(other, tokenizer, PROMPTS)
    assert len(runs) > n


def test_an_answer_that_is_over_is_not_waited_for():
    model, passes = eloquent("llama", TOKENIZER), []
    model.get_output_embeddings().bias.data[TOKENIZER.eos_token_id] = -99.0  # only sentences and lines end
    model.register_forward_hook(lambda *args: passes.append(args))
    for prompt in PROMPTS:
        begin, full = len(passes), answer(model, TOKENIZER, prompt, 32)
        assert len(passes) == begin + 32
        assert greedy_answers(model, TOKENIZER, [prompt], max_new_tokens=32) == [full]
    assert len(passes) < 1.8 * 32 * len(PROMPTS)


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
def test_prompts_near_the_end_of_the_context_get_what_they_get_alone(family):
    model, tokenizer = paired(eloquent, family, context=16, ends="")
    prompts = FILLING_16
    sizes = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    assert sizes[-2:] == [15, 2]
    expected = [
        answer(model, tokenizer, prompt, min(8, 16 - size)) for prompt, size in zip(prompts, sizes, strict=True)
    ]
    assert len(set(expected)) > 8
    for budget in (1, 40, 2048):
        assert greedy_answers(model, tokenizer, prompts, tokens_per_batch=budget) == expected


def test_an_answer_does_not_end_within_a_character(monkeypatch):
    tokenizer = bpe_tokenizer()
    part = tokenizer("青藏", add_special_tokens=False).input_ids[:-1]  # the last byte is missing
    assert tokenizer.decode(part).endswith("\ufffd")
    monkeypatch.setattr("hf_ftedit.models.generation.generated_tokens", lambda *args, **settings: [part])
    assert greedy_answers(tiny_model("gpt2", tokenizer), tokenizer, ["a"]) == ["青"]


HABITS = [
    {"do_sample": True, "temperature": 0.2, "top_p": 0.1, "top_k": 2},
    {"repetition_penalty": 1.3},  # as Qwen2.5's chat models have
    {"no_repeat_ngram_size": 2},
    {"num_beams": 2},
    {"use_cache": False},  # as a configuration that was saved during training says
    {"cache_implementation": "static"},
    {"return_dict_in_generate": True},
    {"stop_strings": ["a"]},
    {"num_return_sequences": 2},
    {"prompt_lookup_num_tokens": 3},
    {"penalty_alpha": 0.6},
    {"max_time": 1e-4},
    {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 9.0}},
]


def test_a_models_habits_of_generation_are_not_its_knowledge():
    model = eloquent("llama", TOKENIZER)
    # Some of the prompts begin alike, and that is run once.
    prompts = [*PROMPTS, *(f"The capital of Kazakhstan and the very old border {letter}" for letter in "abc")]

    def texts():
        args = model, TOKENIZER, prompts
        return greedy_answers(*args), sample_continuations(*args, range(15), length=20)

    expected, plain = texts(), model.generation_config
    for habits in HABITS:
        model.generation_config = own = copy.deepcopy(plain)
        for name, value in habits.items():
            setattr(own, name, value)
        assert texts() == expected, habits
        assert model.generation_config is own, habits


def test_the_text_of_a_card_is_one_with_the_models_own_settings():
    model = eloquent("llama", TOKENIZER)
    args, settings = (model, TOKENIZER, "Rome is in"), {"chat_template": False, "max_new_tokens": 6}
    text = continued_text(*args, **settings)
    own = model.generation_config
    own.do_sample, own.num_return_sequences, own.return_dict_in_generate = True, 2, True
    assert continued_text(*args, **settings) == text
    own.stop_strings = [text[-2:]]
    assert text.startswith(continued_text(*args, **settings))


def test_a_prompt_that_fills_the_context_is_an_error():
    tokenizer = bpe_tokenizer()
    with pytest.raises(EditError, match="fills the model's context"):
        greedy_answers(tiny_model("gpt2", tokenizer, context=4), tokenizer, ["The capital of Kazakhstan is"])


@pytest.mark.parametrize("text, expected", BY_HAND)  # the last ones cannot be told from an abbreviation
def test_first_sentence(text, expected):
    assert first_sentence(text) == expected


@given(SENTENCES)
def test_a_first_sentence_is_a_part_of_the_text_on_one_line(text):
    found = first_sentence(text)
    assert found in text
    assert "\n" not in found
    assert found == found.strip()
