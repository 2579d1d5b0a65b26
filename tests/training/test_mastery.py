"""Rows that the model knows rest: what is left out, what is reviewed, and that runs with it go on exactly."""

import copy
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tiny_edits import EDITS, config, editor
from transformers import DataCollatorForSeq2Seq

from hf_ftedit import EditError
from hf_ftedit.hub.folder import sha256
from hf_ftedit.training.mastery import REVIEW, ROW, Mastery

ROWS = [{ROW: number} for number in range(8)]


def mastery(**most):
    return Mastery(lambda rows: {"n": len(rows)}, 8, 0.5, **{"most": lambda values: values, **most})


def at(epoch, step=1):
    return SimpleNamespace(epoch=float(epoch), global_step=step, is_world_process_zero=True)


def found(memory, losses):
    """Tell of the losses of rows, each of one token."""
    rows = torch.tensor(list(losses))
    memory.note(rows, -torch.tensor(list(losses.values())), torch.arange(len(rows)))


def taken(memory):
    return memory([*ROWS])[ROW].tolist()


def test_rows_rest_from_the_next_epoch_on_and_are_reviewed():
    memory = mastery()
    assert taken(memory) == list(range(8))
    found(memory, {0: 0.1, 1: 0.69, 2: 0.7, 3: 3.0, 5: 0.0})  # -ln 0.5 is 0.693
    assert taken(memory) == list(range(8))  # nothing changes within an epoch
    for epoch in range(1, 2 * REVIEW):
        memory.on_epoch_begin(None, at(epoch), None)
        reviewed = {row for row in range(8) if (row + epoch) % REVIEW == 0}
        assert set(taken(memory)) == {2, 3, 4, 6, 7} | reviewed
    for row in ROWS:  # each has its turn in every REVIEW epochs
        turns = []
        for epoch in range(1, REVIEW + 1):
            memory.on_epoch_begin(None, at(epoch), None)
            turns.append(memory.rests(row[ROW]))
        assert turns.count(False) == (1 if row[ROW] in (0, 1, 5) else REVIEW)


def test_a_forgotten_row_is_trained_again():
    memory = mastery()
    found(memory, {1: 0.0})
    memory.on_epoch_begin(None, at(1), None)
    assert 1 not in taken(memory)
    found(memory, {1: 2.0})
    memory.on_epoch_begin(None, at(2), None)
    assert 1 in taken(memory)


def test_the_probability_is_of_the_whole_completion():
    memory = mastery()
    memory.note(torch.tensor([4, 6]), torch.tensor([-0.4, -0.4, -0.4]), torch.tensor([0, 0, 1]))
    memory.on_epoch_begin(None, at(1), None)
    assert memory.rests(6) and not memory.rests(4)  # 4 has two tokens: 0.8 > ln 2


def test_a_batch_is_never_empty():
    memory = mastery()
    found(memory, {row: 0.1 + row / 100 for row in range(8)})
    memory.on_epoch_begin(None, at(1), None)
    assert memory([{ROW: 0}, {ROW: 2}, {ROW: 1}])[ROW].tolist() == [2]  # the least known


def test_rows_without_numbers_are_collated_as_they_are():
    assert mastery()([{"input_ids": [1]}] * 3) == {"n": 3}


def test_processes_put_together_what_each_found():
    other = torch.full((8,), -math.inf)
    other[3] = 0.2
    memory = mastery(most=lambda values: torch.maximum(values, other))
    found(memory, {1: 0.1})
    memory.on_epoch_begin(None, at(1), None)
    assert memory.rests(1) and not memory.rests(3)  # 3 is reviewed: 3 + 1
    memory.on_epoch_begin(None, at(2), None)
    assert memory.rests(3)


def test_state_goes_on_in_the_middle_of_an_epoch_and_at_its_end():
    whole, cut = mastery(), mastery()
    for memory in (whole, cut):
        memory.on_train_begin(None, at(0, step=0), None)
        found(memory, {0: 0.1, 5: 0.2})
    again = mastery()
    again.load_state(cut.state())
    for memory in (whole, again):
        memory.on_epoch_begin(None, at(0), None)  # the same epoch: nothing is settled
        found(memory, {1: 0.1})
        memory.on_epoch_begin(None, at(1), None)
    assert taken(whole) == taken(again) == [2, 3, 4, 6, 7]
    assert again.state()["trained"] == 3


def test_a_worker_that_is_no_fork_gets_what_it_needs():
    memory = mastery(most=lambda values: values)  # no more to be pickled than a trainer
    found(memory, {0: 0.1})
    memory.on_epoch_begin(None, at(1), None)
    sent = copy.copy(memory)
    sent._collator = dict
    assert [pickle.loads(pickle.dumps(sent)).rests(row) for row in range(2)] == [True, False]


# In a trainer.

REST = {
    "mastered_probability": 0.5,
    "num_train_epochs": 20,
    "learning_rate": 5e-3,
    "num_locality": 3,
    "per_device_train_batch_size": 4,
}


def test_training_leaves_out_what_is_known_and_still_edits(base, tokenizer, tmp_path, caplog):
    trainer = editor(base, tokenizer, config(tmp_path, **REST))
    given, step = [], trainer.training_step

    def noted(model, inputs, *rest, **how):
        given.append(len(inputs["input_ids"]))
        return step(model, inputs, *rest, **how)

    trainer.training_step = noted
    with caplog.at_level("INFO", "hf_ftedit.training.mastery"):
        trainer.train()
    n_rows = len(trainer.train_dataset)
    assert n_rows == len(EDITS) * 4 and sum(given) < 20 * n_rows
    assert f"trained {sum(given)} of {20 * n_rows} row passes" in caplog.text
    assert trainer.evaluate()["eval_efficacy"] == 100


def test_a_killed_run_goes_on_exactly(base, tokenizer, tmp_path):
    often = {**REST, "save_strategy": "steps", "save_steps": 5}

    def run(folder):
        return editor(base, tokenizer, config(tmp_path / folder, **often))

    whole = run("whole")
    whole.train()
    whole.save_model(str(tmp_path / "whole" / "end"))
    cut = run("cut")
    real, count = cut.training_step, iter(range(99))

    def dies(*args, **how):
        if next(count) == 43:
            raise KeyboardInterrupt
        return real(*args, **how)

    cut.training_step = dies
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = run("cut")
    again.train(resume_from_checkpoint=True)
    again.save_model(str(tmp_path / "cut" / "end"))
    names = "adapter_model.safetensors"
    assert sha256(tmp_path / "whole" / "end" / names) == sha256(tmp_path / "cut" / "end" / names)
    assert whole._mastery.state()["trained"] == again._mastery.state()["trained"] < 20 * len(whole.train_dataset)


def test_what_it_does_not_fit_is_told(base, tokenizer, tmp_path):
    stream = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}] * 4).to_iterable_dataset()
    with pytest.raises(EditError, match="mastered_probability works with edits"):
        editor(base, tokenizer, config(tmp_path, mastered_probability=0.9, max_steps=2), stream)
    with pytest.raises(EditError, match="mastered_probability works with edits"):
        editor(base, tokenizer, config(tmp_path, mastered_probability=0.9, objective="full"))


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1])
def test_a_value_that_is_no_probability_is_told(tmp_path, value):
    with pytest.raises(EditError, match=f"mastered_probability is {value}: give a number between 0 and 1"):
        config(tmp_path, mastered_probability=value)


@pytest.mark.parametrize("settings", [REST, {"num_train_epochs": 2}], ids=["rests", "plain"])
def test_a_collator_of_ones_own_sees_no_more_than_a_models_inputs(base, tokenizer, tmp_path, settings):
    seen, pads = set(), DataCollatorForSeq2Seq(tokenizer)

    def collator(rows):
        seen.update(*rows)
        return pads(rows)

    trainer = editor(base, tokenizer, config(tmp_path, **settings), data_collator=collator)
    trainer.train()
    assert seen == {"input_ids", "labels"}
    assert (trainer._mastery is not None) == (settings is REST)


def test_rows_are_sorted_by_the_lengths_that_tokenizing_found(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    sampler = trainer._get_train_sampler(trainer._remove_unused_columns(trainer.train_dataset))
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    assert trainer._guard.sampler is sampler and len(sampler) == len(lengths)
    assert sampler._sampler.lengths == lengths and type(sampler._sampler.lengths) is list
