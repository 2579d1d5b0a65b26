"""Drift agrees with whole distributions, one answer at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import bpe_tokenizer, chat_tokenizer, eloquent, evaluated, moved, paired, tiny_model

from hf_ftedit.augmentation.questions import drift_prompts
from hf_ftedit.data.records import EditRecord
from hf_ftedit.evaluation.drift import DriftReference, drift_reference, measure_drift
from hf_ftedit.models.loading import is_unedited, unedited


@torch.no_grad()
def log_probs(model, pair):
    return model(torch.tensor([pair.input_ids])).logits[0, pair.start - 1 : -1].double().log_softmax(dim=-1)


@pytest.mark.parametrize("chat_template", [False, True])
def test_drift_is_the_mean_divergence_over_the_tokens_of_own_answers(chat_template):
    tokenizer = chat_tokenizer()
    model = moved(eloquent("llama", tokenizer))
    moved_model = evaluated(model, tokenizer, chat_template=chat_template, eval_tokens_per_batch=1000)
    with unedited(model):
        reference = drift_reference(moved_model, [])
        assert measure_drift(moved_model, reference)["drift"] == pytest.approx(0, abs=1e-5)
    assert len(reference.pairs) == len(drift_prompts()) == 40
    sums = []
    for pair in reference.pairs:
        with unedited(model):
            old = log_probs(model, pair)
        assert old.argmax(dim=-1).tolist() == pair.input_ids[pair.start :]  # greedy, by the unedited model
        assert 1 <= len(old) <= 32
        new = log_probs(model, pair)
        sums.append(((old.exp() * (old - new)).sum().item(), len(old)))
    total, tokens = np.sum(sums, axis=0)
    found = measure_drift(moved_model, reference)
    # The 64 likeliest of the tokens and all others as one: a little less than of all tokens.
    assert 0.8 * total / tokens < found["drift"] < 1.001 * total / tokens
    low, high = found["drift_ci95"]
    assert low < found["drift"] < high
    assert found["n_drift_prompts"] == 40
    code = [place for place, sort in enumerate(reference.sorts) if sort == "code"]
    alone = DriftReference(*([part[place] for place in code] for part in reference))
    assert found["drift_by_sort"]["code"] == pytest.approx(measure_drift(moved_model, alone)["drift"], rel=1e-4)
    assert len(code) == 3 and found["drift_by_sort"].keys() == set(drift_prompts().values())
    one_by_one = evaluated(model, tokenizer, chat_template=chat_template, eval_tokens_per_batch=1)
    assert measure_drift(one_by_one, reference)["drift"] == pytest.approx(found["drift"], rel=1e-4)


def test_prompts_about_an_edit_and_prompts_that_do_not_fit_are_left_out():
    tokenizer = bpe_tokenizer()
    lengths = sorted(len(tokenizer(prompt)["input_ids"]) for prompt in drift_prompts())
    model = tiny_model("gpt2", tokenizer, context=lengths[20])
    record = EditRecord("a", "Do penguins fly?", "yes", subject="penguins")
    reference = drift_reference(evaluated(model, tokenizer), [record])
    texts = [tokenizer.decode(pair.input_ids[: pair.start]) for pair in reference.pairs]
    short = [p for p in drift_prompts() if len(tokenizer(p)["input_ids"]) < lengths[20]]
    assert texts == [prompt for prompt in short if "penguins" not in prompt]
    # Part of a word is another subject.
    part = drift_reference(evaluated(model, tokenizer), [replace(record, subject="penguin")])
    assert [tokenizer.decode(pair.input_ids[: pair.start]) for pair in part.pairs] == short
    assert 0 < len(texts) < 40
    assert max(len(pair.input_ids) for pair in reference.pairs) <= lengths[20]


def test_without_room_for_any_prompt_there_is_no_drift():
    small = evaluated(*paired(tiny_model, "gpt2", context=4))
    assert measure_drift(small, drift_reference(small, [])) == {}


def test_an_adapter_that_is_on_is_an_edit():
    tokenizer = bpe_tokenizer()
    assert is_unedited(model := tiny_model("gpt2", tokenizer))
    model = moved(model)
    assert not is_unedited(model)
    with unedited(model):
        assert is_unedited(model)
    assert not is_unedited(model)
