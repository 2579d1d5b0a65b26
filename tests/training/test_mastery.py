"""Rows that the model has mastered are skipped and reviewed."""

import copy
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tiny_edits import EDITS, config, editor, fitted
from transformers import DataCollatorForSeq2Seq

from hf_ftedit import EditError
from hf_ftedit.training.mastery import REVIEW_EPOCHS, ROW, Mastery

ROWS = [{ROW: number} for number in range(8)]


def mastery(max_over_processes=lambda values: values):
    return Mastery(lambda rows: {"n": len(rows)}, 8, 0.5, max_over_processes)


def at(epoch, step=1):
    return SimpleNamespace(epoch=float(epoch), global_step=step, is_world_process_zero=True)


def record(memory, losses):
    """Record the losses of rows, each of one token."""
    rows = torch.tensor(list(losses))
    memory.record(rows, -torch.tensor(list(losses.values())), torch.arange(len(rows)))


def taken(memory):
    return memory([*ROWS])[ROW].tolist()


def test_rows_are_skipped_from_the_next_epoch_on_and_reviewed():
    memory = mastery()
    assert taken(memory) == list(range(8))
    record(memory, {0: 0.1, 1: 0.69, 2: 0.7, 3: 3.0, 5: 0.0})  # -ln 0.5 is 0.693
    assert taken(memory) == list(range(8))  # nothing changes within an epoch
    for epoch in range(1, 2 * REVIEW_EPOCHS):
        memory.on_epoch_begin(None, at(epoch), None)
        reviewed = {row for row in range(8) if (row + epoch) % REVIEW_EPOCHS == 0}
        assert set(taken(memory)) == {2, 3, 4, 6, 7} | reviewed
    for row in ROWS:  # each has its turn once in REVIEW_EPOCHS epochs
        turns = []
        for epoch in range(1, REVIEW_EPOCHS + 1):
            memory.on_epoch_begin(None, at(epoch), None)
            turns.append(memory.skips(row[ROW]))
        assert turns.count(False) == (1 if row[ROW] in (0, 1, 5) else REVIEW_EPOCHS)


def test_a_forgotten_row_is_trained_again():
    memory = mastery()
    record(memory, {1: 0.0})
    memory.on_epoch_begin(None, at(1), None)
    assert 1 not in taken(memory)
    record(memory, {1: 2.0})
    memory.on_epoch_begin(None, at(2), None)
    assert 1 in taken(memory)


def test_the_probability_is_of_the_whole_completion():
    memory = mastery()
    memory.record(torch.tensor([4, 6]), torch.tensor([-0.4, -0.4, -0.4]), torch.tensor([0, 0, 1]))
    memory.on_epoch_begin(None, at(1), None)
    assert memory.skips(6) and not memory.skips(4)  # 4 has two tokens: 0.8 > ln 2


def test_a_batch_is_never_empty():
    memory = mastery()
    record(memory, {row: 0.1 + row / 100 for row in range(8)})
    memory.on_epoch_begin(None, at(1), None)
    assert memory([{ROW: 0}, {ROW: 2}, {ROW: 1}])[ROW].tolist() == [2]  # the least known


def test_rows_without_numbers_are_collated_as_they_are():
    assert mastery()([{"input_ids": [1]}] * 3) == {"n": 3}


def test_processes_share_the_losses_that_each_recorded():
    other = torch.full((8,), -math.inf)
    other[3] = 0.2
    memory = mastery(lambda values: torch.maximum(values, other))
    record(memory, {1: 0.1})
    memory.on_epoch_begin(None, at(1), None)
    assert memory.skips(1) and not memory.skips(3)  # 3 is reviewed: 3 + 1
    memory.on_epoch_begin(None, at(2), None)
    assert memory.skips(3)


def test_state_resumes_in_the_middle_of_an_epoch_and_at_its_end():
    whole, cut = mastery(), mastery()
    for memory in (whole, cut):
        memory.on_train_begin(None, at(0, step=0), None)
        record(memory, {0: 0.1, 5: 0.2})
    again = mastery()
    again.load_state(cut.state())
    for memory in (whole, again):
        memory.on_epoch_begin(None, at(0), None)  # the same epoch: nothing is settled
        record(memory, {1: 0.1})
        memory.on_epoch_begin(None, at(1), None)
    assert taken(whole) == taken(again) == [2, 3, 4, 6, 7]
    assert again.state()["trained"] == 3


def test_a_worker_that_is_no_fork_gets_what_it_needs():
    memory = mastery(lambda values: values)  # a lambda, no more to be pickled than a trainer
    record(memory, {0: 0.1})
    memory.on_epoch_begin(None, at(1), None)
    sent = copy.copy(memory)
    sent._collator = dict
    assert [pickle.loads(pickle.dumps(sent)).skips(row) for row in range(2)] == [True, False]


# In a trainer.

SKIPPING = {"mastered_probability": 0.5, "num_train_epochs": 20, "learning_rate": 5e-3, "num_locality": 3}
SKIPPING |= {"per_device_train_batch_size": 4}


def test_training_skips_mastered_rows_and_still_edits(base, tokenizer, tmp_path, caplog):
    trainer = editor(base, tokenizer, config(tmp_path, **SKIPPING))
    sizes, step = [], trainer.training_step

    def noted(model, inputs, *args, **kwargs):
        sizes.append(len(inputs["input_ids"]))
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = noted
    with caplog.at_level("INFO", "hf_ftedit.training.mastery"):
        trainer.train()
    n_rows = len(trainer.train_dataset)
    assert n_rows == len(EDITS) * 4 and sum(sizes) < 20 * n_rows
    assert f"trained {sum(sizes)} of {20 * n_rows} row passes" in caplog.text
    assert trainer.evaluate()["eval_efficacy"] == 100


def test_rows_and_losses_that_it_does_not_fit_are_refused(base, tokenizer, tmp_path):
    stream = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}] * 4).to_iterable_dataset()
    with pytest.raises(EditError, match="mastered_probability works with edits"):
        editor(base, tokenizer, config(tmp_path, mastered_probability=0.9, max_steps=2), stream)
    with pytest.raises(EditError, match="mastered_probability works with edits"):
        editor(base, tokenizer, config(tmp_path, mastered_probability=0.9, objective="full"))


@pytest.mark.parametrize("settings", [SKIPPING, {}], ids=["skipping", "plain"])
def test_a_collator_of_ones_own_sees_no_more_than_a_models_inputs(base, tokenizer, tmp_path, settings):
    seen, pads = set(), DataCollatorForSeq2Seq(tokenizer)

    def collator(rows):
        seen.update(*rows)
        return pads(rows)

    trainer = fitted(base, tokenizer, config(tmp_path, **{**settings, "num_train_epochs": 1}), data_collator=collator)
    assert seen == {"input_ids", "labels"}
    assert (trainer._mastery is not None) == (settings is SKIPPING)
