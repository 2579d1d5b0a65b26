"""Plain text beside edits: the loss by hand, given and sampled texts, and what it does not go with."""

import json
import math

import pytest
import torch
from datasets import Dataset
from tiny import TEXTS
from tiny_edits import EDITS, config, edited, editor, lora, start_of, token_divergences, token_losses
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from hf_ftedit import EditError
from hf_ftedit.training import plain_text
from hf_ftedit.training.loss import WEIGHT
from hf_ftedit.training.plain_text import DEFAULT_WEIGHT, FEWEST, LENGTH

GIVEN = ["Rome is in Italy", "Danielle Darrieux is a native of the very old border", "Bergen"]
OF_EDITS = ["Norway is old", "The capital city of Peru is Lima"]  # a subject, a probe


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([{"text": text} for text in GIVEN + OF_EDITS]))
    return str(path)


def trainer(base, tokenizer, folder, **settings):
    extra = {name: settings.pop(name) for name in ("data_collator", "train_dataset") if name in settings}
    return editor(base, tokenizer, config(folder, **settings), peft_config=lora(), **extra)


def by_hand(trainer, edit_rows, texts, weight):
    """(1 - weight) · the mean over the targets' tokens + weight · that over all tokens of texts that are learnt."""
    edits = [token_losses(trainer.model, row["input_ids"], start_of(row)) for row in edit_rows]
    of_text = token_divergences if trainer.args.locality_loss == "kl" else token_losses
    plain = [of_text(trainer.model, row["input_ids"], start_of(row)) for row in texts]
    return (1 - weight) * torch.cat(edits).mean() + weight * torch.cat(plain).mean()


@pytest.mark.parametrize(("locality_loss", "width"), [("nll", 0), ("nll", 40), ("kl", 0), ("kl", 96)])
def test_the_loss_is_the_sum_of_two_weighted_means(base, tokenizer, tmp_path, texts, locality_loss, width):
    alone = trainer(base, tokenizer, tmp_path / "alone").train_dataset
    assert WEIGHT not in alone.column_names
    given = {"text_loss_weight": 0.3, "training_texts": texts, "per_device_train_batch_size": 99}
    given["locality_loss"] = locality_loss
    both = edited(trainer(base, tokenizer, tmp_path / "both", **given))
    assert both.args.train_sampling_strategy == "random"  # rows of all lengths in each batch
    ids = [tokenizer(text)["input_ids"] for text in GIVEN]
    rest = list(both.train_dataset)[len(alone) :]
    assert sorted(row["input_ids"] for row in rest if start_of(row) == 1) == sorted(ids) and len(rest) > len(ids)
    both.data_collator.tree_width = width
    expected = by_hand(both, alone, rest, 0.3)
    (batch,) = both.get_train_dataloader()
    count = both._get_num_items_in_batch([batch], "cpu")
    whole = both.compute_loss(both.model, batch, num_items_in_batch=count)
    torch.testing.assert_close(whole.double(), expected, rtol=1e-4, atol=0)
    # Gradients are accumulated over parts of a step: their losses, each over the tokens of all of them, add up.
    rows = list(both.train_dataset)
    parts = [both.data_collator(rows[start : start + 4]) for start in range(0, len(rows), 4)]
    losses = [both.compute_loss(both.model, part, num_items_in_batch=count) for part in parts]
    torch.testing.assert_close(sum(losses).double(), expected, rtol=1e-4, atol=0)


def test_texts_are_sampled_from_the_unedited_model_where_none_are_given(base, tokenizer, tmp_path):
    one, two = (trainer(base, tokenizer, tmp_path / name, text_loss_weight=0.1) for name in "ab")
    rows = one.train_dataset.to_list()
    assert two.train_dataset.to_list() == rows
    edits = len(trainer(base, tokenizer, tmp_path / "c").train_dataset)
    assert len(rows) == edits + FEWEST
    sampled = [row for row in rows[edits:] if start_of(row) == 1]
    for row in sampled:
        assert row["labels"] == [-100, *row["input_ids"][1:]] and 2 <= row["length"] == len(row["input_ids"]) <= LENGTH
        assert not any(edit["subject"] in tokenizer.decode(row["input_ids"]) for edit in EDITS)
    assert len({tuple(row["input_ids"]) for row in sampled}) > FEWEST / 4
    assert one.train().training_loss > 0 and one.recipe["text_loss_weight"] == 0.1


def test_what_the_unedited_model_says_after_a_target_stays(base, tokenizer, tmp_path):
    rows = trainer(base, tokenizer, tmp_path, text_loss_weight=0.1).train_dataset.to_list()
    edits = len(trainer(base, tokenizer, tmp_path / "alone").train_dataset)
    after = [row for row in rows[edits:] if start_of(row) > 1]
    new = {tuple(tokenizer(f"{edit['prompt']} {edit['target_new']}")["input_ids"]) for edit in EDITS}
    assert {tuple(row["input_ids"][: start_of(row)]) for row in after} == new and len(after) == len(new)
    for row in after:
        ids, start = row["input_ids"], start_of(row)
        assert start < len(ids) <= start + 32
        greedy = base(torch.tensor([ids])).logits[0].argmax(-1).tolist()
        assert ids[start:] == greedy[start - 1 : -1]
    # Where the end of sequence is learnt behind a target, nothing follows.
    rows = trainer(base, tokenizer, tmp_path / "end", text_loss_weight=0.1, end_of_answer=True).train_dataset
    assert {start_of(row) for row in list(rows)[edits:]} == {1}


def test_targets_of_each_edit_are_followed_by_text_in_turn(base, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text, "FEWEST", 8)
    settings = {"paraphrase_strategy": "prefix", "num_paraphrases": 5, "prefix_counts": [5, 5], "num_locality": 5}
    rows = trainer(base, tokenizer, tmp_path, text_loss_weight=0.1, **settings).train_dataset.to_list()
    texts = [tokenizer.decode(row["input_ids"][: start_of(row)]) for row in rows[-8:] if start_of(row) > 1]
    counts = [sum(text.endswith(f"{edit['prompt']} {edit['target_new']}") for text in texts) for edit in EDITS]
    assert sorted(counts) == [1, 1, 2]


def test_a_long_text_counts_once(base, tokenizer, tmp_path):
    path = tmp_path / "long.json"
    path.write_text(json.dumps([{"text": " ".join(text for text in TEXTS if not {*text.split()} & {"Kazakhstan"})}]))
    rows = trainer(base, tokenizer, tmp_path, text_loss_weight=0.1, training_texts=str(path)).train_dataset.to_list()
    ids = tokenizer(json.loads(path.read_text())[0]["text"])["input_ids"]
    parts = [row["labels"][1:] for row in rows if row["labels"][1:2] != [-100]]
    assert len(parts) == math.ceil((len(ids) - 1) / (LENGTH - 1)) > 1
    assert sorted(token for part in parts for token in part) == sorted(ids[1:])


def test_edits_of_a_base_model_have_plain_text_beside_them_by_default(base, tokenizer, tmp_path):
    def weight(**settings):
        return trainer(base, tokenizer, tmp_path, **{"text_loss_weight": None, **settings}).args.text_loss_weight

    assert weight() == DEFAULT_WEIGHT == 0.3
    collator = DataCollatorForLanguageModeling(pad_token_id=0)
    others = [{"objective": "full"}, {"mastered_probability": 0.9}, {"loss_type": "dft"}, {"data_collator": collator}]
    rows = trainer(base, tokenizer, tmp_path).train_dataset.select_columns(["input_ids", "labels"])
    prompts = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}])
    assert [weight(**other) for other in [*others, {"train_dataset": prompts}, {"train_dataset": rows}]] == [0.0] * 6


def test_what_does_not_go_with_plain_text(base, tokenizer, tmp_path):
    makes = {"text_loss_weight": 0.1, "training_texts": str(tmp_path / "texts.json")}
    (tmp_path / "texts.json").write_text(json.dumps([{"text": text} for text in OF_EDITS]))
    with pytest.raises(EditError, match="no text that is long enough and of nothing edited"):
        trainer(base, tokenizer, tmp_path, **makes)
    (tmp_path / "texts.json").write_text(json.dumps([{"text": text} for text in GIVEN]))
    with pytest.raises(EditError, match="works with the plain conditional loss"):
        trainer(base, tokenizer, tmp_path, loss_type="dft", **makes)
    with pytest.raises(EditError, match="would lose the weights of rows"):
        trainer(base, tokenizer, tmp_path, data_collator=DataCollatorForLanguageModeling(pad_token_id=0), **makes)
