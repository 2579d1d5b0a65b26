import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import bpe_tokenizer, evaluated, paired, tiny_model

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.perplexity import perplexity
from hf_ftedit.models import batching
from hf_ftedit.models.batching import gc_frozen, in_batches
from hf_ftedit.models.generation import greedy_answers
from hf_ftedit.models.likelihood import score_pairs
from hf_ftedit.models.sampling import sample_continuations

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB."
PROMPTS = [f"{letter}{letter} lies in the far north of" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
TARGETS = ["Peru and Norway", "Rome"] * 13


@pytest.fixture(autouse=True, scope="module")
def little_garbage():
    """Garbage is collected at each failure: not to be looked for among all that is imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def batches(lengths, tokens_per_batch):
    found = []
    in_batches(lengths, tokens_per_batch, found.append)
    return found


def limited(lengths, most, error=torch.OutOfMemoryError):
    """What runs batches of up to `most` tokens and fails at larger ones; the sizes it was given; what it ran."""
    tried, done = [], []

    def run(batch):
        tried.append(len(batch) * max(lengths[index] for index in batch))
        if tried[-1] > most:
            raise error(CUDA)
        done.append(batch)

    return run, tried, done


def test_batches_by_hand():
    lengths = [3, 9, 4, 4, 1, 8]
    assert batches(lengths, 16) == [[1], [5, 2], [3, 0, 4]]  # 9, 2 x 8, 3 x 4 tokens
    assert batches(lengths, 18) == [[1, 5], [2, 3, 0, 4]]
    assert batches(lengths, 1000) == [[1, 5, 2, 3, 0, 4]]
    assert batches(lengths, 1) == [[1], [5], [2], [3], [0], [4]]  # at least one item each
    assert batches([], 16) == []


def test_logits_of_a_large_vocabulary_keep_to_a_bound(monkeypatch):
    model, tokenizer = tiny_model("llama", bpe_tokenizer()).eval(), bpe_tokenizer()
    vocabulary, sizes, asked = model.config.vocab_size, [], evaluated(model, tokenizer)
    plain = perplexity(asked, PROMPTS)["perplexity"]
    assert batching.MOST_LOGITS // 262_144 == 1024 and batching.MOST_LOGITS // 49_152 > 2048  # Gemma 3 and SmolLM2
    model.register_forward_hook(lambda module, args, output: sizes.append(output.logits.numel()))
    monkeypatch.setattr(batching, "MOST_LOGITS", 40 * vocabulary)
    assert perplexity(asked, PROMPTS)["perplexity"] == pytest.approx(plain, rel=1e-5)
    score_pairs(model, tokenizer, PROMPTS, TARGETS)
    assert len(sizes) > 10 and max(sizes) <= 40 * vocabulary


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_batches_keep_to_the_budget_the_longest_first(lengths, budget):
    found = batches(lengths, budget)
    order = [index for batch in found for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in found)
    assert all((len(batch) + 1) * lengths[batch[0]] > budget for batch in found[:-1])  # no more would have fitted


def test_what_does_not_fit_goes_on_in_halves(caplog):
    run, tried, done = limited([10] * 10, most=25)
    with caplog.at_level(logging.WARNING, logger="hf_ftedit.models.batching"):
        in_batches([10] * 10, 100, run)
    assert done == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert tried == [100, 50, 20, 20, 20, 20, 20]
    assert [record.name for record in caplog.records] == ["hf_ftedit.models.batching"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: going on with 50 tokens a batch",
        "out of memory: going on with 25 tokens a batch",
    ]
    caplog.clear()
    run, _, done = limited([10] * 10, most=100)
    in_batches([10] * 10, 100, run)
    assert done == [list(range(10))] and not caplog.records


def test_what_was_done_is_not_done_again():
    lengths, done, failed = [4] * 9, [], []

    def run(batch):  # other programs take the memory while this one runs
        if len(batch) > {0: 4, 4: 2, 6: 1}.get(len(done), 1):
            failed.append(batch)
            raise RuntimeError(CUDA)
        done.extend(batch)

    in_batches(lengths, 16, run)
    assert done == list(range(9))
    assert failed == [[4, 5, 6, 7], [6, 7]]


def test_what_a_failed_batch_held_is_let_go():
    held = []

    def run(batch):
        assert not any(tensor() is not None for tensor in held)
        activations = torch.zeros(1)
        held.append(weakref.ref(activations))
        if len(batch) > 1:
            raise torch.OutOfMemoryError(CUDA)

    in_batches([1] * 4, 4, run)
    assert len(held) == 6  # of four items, of two, and of one four times


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(30, 100), st.integers(1, 200))
def test_every_item_is_done_once_whatever_the_memory(lengths, most, budget):
    run, _, done = limited(lengths, most)
    in_batches(lengths, budget, run)
    assert sorted(index for batch in done for index in batch) == list(range(len(lengths)))


def test_the_memory_of_this_machine_is_found_out():
    done = []

    def run(batch):
        torch.empty(2**44 if len(batch) > 2 else 1, dtype=torch.float64)  # 128 TiB
        done.append(batch)

    in_batches([1] * 5, 5, run)
    assert done == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_what_never_fits_is_an_error(error):
    run, tried, done = limited([10, 20, 30], most=5, error=error)
    with pytest.raises(EditError, match="the memory does not suffice for a single prompt; load the model in 4 bits"):
        in_batches([10, 20, 30], 64, run)
    assert tried[:2] == [60, 30] and set(tried[2:]) <= {30}
    assert not done


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1])
def test_other_errors_pass(error, after):
    calls = []

    def run(batch):
        calls.append(batch)
        if len(calls) == 1 and after:
            raise RuntimeError(CUDA)
        raise error

    with pytest.raises(type(error)) as caught:
        in_batches([1, 1], 2, run)
    assert caught.value is error
    assert calls == ([[0, 1], [0]] if after else [[0, 1]])


def crowd(model, most):
    """Make `model` fail as a GPU does where it is given more than `most` tokens; the sizes it is given, a list."""
    sizes = []

    def check(module, args, inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > most:
            raise torch.OutOfMemoryError(CUDA)

    model.register_forward_pre_hook(check, with_kwargs=True)
    return sizes


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_scores_do_not_depend_on_the_memory(family, caplog):
    model, tokenizer = paired(tiny_model, family)
    expected = score_pairs(model, tokenizer, PROMPTS, TARGETS)
    sizes = crowd(model, 150)
    found = score_pairs(model, tokenizer, PROMPTS, TARGETS)
    np.testing.assert_allclose(found.logprob, expected.logprob, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.match, expected.match)
    assert max(sizes) > 150 and "out of memory: going on with" in caplog.text


def test_texts_do_not_depend_on_the_memory():
    model, tokenizer = paired(tiny_model, "gpt2")
    seeds = range(len(PROMPTS))
    args = model, tokenizer, PROMPTS
    expected = greedy_answers(*args), sample_continuations(*args, seeds, length=20)
    sizes = crowd(model, 60)
    assert (greedy_answers(*args), sample_continuations(*args, seeds, length=20)) == expected
    assert max(sizes) > 60


def test_old_objects_are_left_alone_in_the_context_only():
    gc.unfreeze()
    with gc_frozen():
        inside = gc.get_freeze_count()
        with gc_frozen():
            assert gc.get_freeze_count() > inside / 2 > 0  # some may die meanwhile
        assert gc.get_freeze_count() > inside / 2  # the outer one still holds
    assert gc.get_freeze_count() == 0


def test_objects_that_others_set_apart_stay_so():
    gc.freeze()
    count = gc.get_freeze_count()
    with pytest.raises(KeyboardInterrupt), gc_frozen():
        raise KeyboardInterrupt
    assert gc.get_freeze_count() > count / 2  # a few may die meanwhile
