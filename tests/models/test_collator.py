import pytest
import torch

from hf_ftedit.models.collator import CompletionOnlyCollator

ROWS = [{"input_ids": [5, 7, 7], "labels": [-100, -100, 7]}, {"input_ids": [8, 9], "labels": [-100, 9]}]


def test_padding_by_position_even_where_the_padding_token_is_a_target():
    batch = CompletionOnlyCollator(pad_token_id=7)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 7, 7], [8, 9, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7], [-100, 9, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}


def test_length_is_rounded_up():
    batch = CompletionOnlyCollator(pad_token_id=0, pad_to_multiple_of=8)(ROWS)
    assert batch["input_ids"].shape == (2, 8) and batch["labels"][:, 3:].eq(-100).all()


def test_rows_that_do_not_say_what_to_train_are_an_error():
    with pytest.raises(ValueError, match="needs `labels`"):
        CompletionOnlyCollator(pad_token_id=0)([{"input_ids": [1, 2], "completion_mask": [0, 1]}])


STAYS = {"weight": 0.5, "ref_tokens": [3, 4], "ref_logprobs": [-1.0, -2.0], "ref_rest": [-3.0]}
EDIT = {"weight": 2.0, "ref_tokens": [], "ref_logprobs": [], "ref_rest": []}


def test_chat_rows_with_references_come_last():
    batch = CompletionOnlyCollator(pad_token_id=0)([ROWS[0] | STAYS, ROWS[1] | EDIT, ROWS[1] | STAYS])
    assert batch["input_ids"].tolist() == [[8, 9, 0], [5, 7, 7], [8, 9, 0]]
    assert batch["weight"].tolist() == [2.0, 0.5, 0.5]
    assert batch["ref_tokens"].tolist() == [[3, 4], [3, 4]] and batch["ref_rest"].tolist() == [-3.0, -3.0]
    assert batch["ref_logprobs"].tolist() == [[-1.0, -2.0], [-1.0, -2.0]]
    dtypes = [batch[name].dtype for name in ("ref_tokens", "ref_logprobs", "ref_rest")]
    assert dtypes == [torch.long, torch.half, torch.half]


def test_rows_of_the_base_recipe_have_neither_weights_nor_references():
    batch = CompletionOnlyCollator(pad_token_id=0)(ROWS)
    assert "weight" not in batch and "ref_rest" not in batch


def test_chat_rows_as_a_token_tree():
    collator = CompletionOnlyCollator(pad_token_id=0)
    collator.tree_width = 8
    rows = [{"input_ids": [5, 7, 8], "labels": [-100, -100, 8]}, {"input_ids": [5, 6, 9], "labels": [-100, 6, 9]}]
    batch = collator([row | EDIT | {"length": 3} for row in rows])
    trees = batch["trees"]
    assert trees["input_ids"].tolist() == [[5, 6, 7]] and trees["position_ids"].tolist() == [[0, 1, 1]]
    assert trees["visible"].int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
    assert trees["places"].tolist() == [[0, 2], [0, 0], [0, 1]]  # of the tokens 8, 6 and 9: the order of the labels
    assert batch["labels"][batch["labels"] != -100].tolist() == [8, 6, 9]
    assert "trees" not in collator(rows)  # of somebody else: no label need be there, and there may be gaps
