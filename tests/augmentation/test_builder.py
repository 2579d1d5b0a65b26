"""The builder: its splits, its cache, which never returns stale rows, and the rows as tokens."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from tiny import bpe_tokenizer, chat_tokenizer, sentencepiece_tokenizer, tiny_model
from tiny_edits import PLAIN
from trl import SFTConfig, SFTTrainer

from hf_ftedit import AugmentationOptions, Augmenter, EditDatasetBuilder, EditError, EditOptions, Fact, read_edits
from hf_ftedit.augmentation.rows import encode_rows, is_prompt_completion, probe_rows

pytestmark = pytest.mark.usefixtures("own_cache")
COLUMNS = ["prompt", "completion", "kind", "edit_id"]
SPLITS = ["train", "rewrite", "paraphrase", "neighborhood", "portability"]
EDITS = [
    {
        "edit_id": "kz",
        "prompt": "The capital of Kazakhstan is",
        "subject": "Kazakhstan",
        "target_new": "Almaty",
        "target_true": "Astana",
        "paraphrase_prompts": ["Kazakhstan is governed from", "The seat of Kazakhstan is"],
        "neighborhood_prompts": [{"prompt": "The capital of Peru is", "target": "Lima"}, {"prompt": "Oslo lies in"}],
        "portability_prompts": [{"prompt": "The capital of Almaty's state is", "answers": ["Almaty", "Alma-Ata"]}],
        "relation_id": "P36",
    },
    {
        "edit_id": "no",
        "prompt": "The capital of Norway is",
        "subject": "Norway",
        "target_new": "Bergen",
        "target_true": "Oslo",
        "relation_id": "P36",
    },
    {"edit_id": "free", "prompt": "Rome is in", "target_new": "Gaul"},
]
POOL = [
    Fact(template.replace("{}", country), city, subject=country, relation_id="P36")
    for template in ("The capital of {} is", "{}'s capital city is", "The government of {} sits in")
    for country, city in (("Chile", "Santiago"), ("Ghana", "Accra"), ("Japan", "Tokyo"), ("Cuba", "Havana"))
]
OPTIONS = AugmentationOptions(num_paraphrases=3, num_locality=4, prefix_lengths=[3], prefix_counts=[4])


@pytest.fixture(scope="module")
def tokenizer():
    return bpe_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model("gpt2", tokenizer)


@pytest.fixture
def build(model, tokenizer):
    """A builder of the edits above, but for what is given."""

    def made(edits=EDITS, **given):
        return EditDatasetBuilder(edits, model, tokenizer, **{"locality_pool": POOL, "options": OPTIONS, **given})

    return made


def prepared(builder, **how):
    builder.download_and_prepare(**how)
    return builder.as_dataset()


def test_splits_and_columns(build):
    dataset = prepared(build())
    assert isinstance(dataset, DatasetDict) and list(dataset) == SPLITS
    assert all(split.column_names == COLUMNS for split in dataset.values())
    # of each edit 1 rewrite, 3 paraphrases and 4 facts
    assert {name: len(split) for name, split in dataset.items()} == {
        "train": 24,
        "rewrite": 3,
        "paraphrase": 2,
        "neighborhood": 1,  # the other one has no target: there is nothing that could follow it
        "portability": 1,
    }


@pytest.mark.parametrize("make", [bpe_tokenizer, sentencepiece_tokenizer])
def test_the_end_of_an_answer_is_one_more_label_of_the_edits_own_rows(make):
    tokenizer = make()
    model, options = tiny_model("gpt2", tokenizer), replace(OPTIONS, end_of_answer=True)
    plain, ending = (
        prepared(EditDatasetBuilder(EDITS, model, tokenizer, locality_pool=POOL, options=each))
        for each in (OPTIONS, options)
    )
    assert all(split.column_names == [*COLUMNS, "ends"] for split in ending.values())
    own = {"rewrite": {True}, "paraphrase": {True}, "neighborhood": {False}, "portability": {False}}
    assert {name: set(split["ends"]) for name, split in ending.items()} == {"train": {True, False}, **own}
    rows = zip(*(encode_rows(dataset["train"], tokenizer) for dataset in (plain, ending)), strict=True)
    for kind, (before, after) in zip(ending["train"]["kind"], rows, strict=True):
        end = [] if kind == "locality" else [tokenizer.eos_token_id]
        assert after["input_ids"] == before["input_ids"] + end and after["labels"] == before["labels"] + end
        assert after["length"] == len(after["input_ids"])


def test_probe_splits_say_what_should_follow(build):
    dataset = prepared(build())
    assert dataset["rewrite"].to_list() == [
        {
            "prompt": edit["prompt"],
            "completion": f" {edit['target_new']}",
            "kind": "rewrite",
            "edit_id": edit["edit_id"],
        }
        for edit in EDITS
    ]
    assert dataset["paraphrase"]["prompt"][:] == ["Kazakhstan is governed from", "The seat of Kazakhstan is"]
    assert set(dataset["paraphrase"]["completion"]) == {" Almaty"}
    assert dataset["neighborhood"].to_list() == [
        {"prompt": "The capital of Peru is", "completion": " Lima", "kind": "neighborhood", "edit_id": "kz"}
    ]
    assert dataset["portability"][0]["completion"] == " Almaty"
    assert [row["prompt"] for row in probe_rows(read_edits(EDITS)[0], "neighborhood")] == ["The capital of Peru is"]


def test_training_rows_are_the_augmenters(build, model, tokenizer):
    rows = Augmenter(read_edits(EDITS), OPTIONS, pool=POOL, model=model, tokenizer=tokenizer).rows()
    expected = list(rows)
    assert prepared(build())["train"].to_list() == expected
    assert build(seed=42).prepared("train").to_list() == expected
    kinds = [row["kind"] for row in expected if row["edit_id"] == "no"]
    assert kinds == ["rewrite"] + ["paraphrase"] * 3 + ["locality"] * 4
    assert {row["completion"] for row in expected if row["kind"] == "paraphrase"} == {" Almaty", " Bergen", " Gaul"}


def test_the_same_inputs_are_made_once(build, monkeypatch):
    first = build()
    rows = prepared(first)["train"].to_list()

    def never(*args, **kwargs):
        raise AssertionError("the rows were made again")

    monkeypatch.setattr(Augmenter, "rows_of", never)
    second = build(edits=read_edits(EDITS), locality_pool=list(POOL))
    assert second.cache_dir == first.cache_dir and second.config_id == first.config_id
    assert prepared(second)["train"].to_list() == rows
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        prepared(build(seed=1))


DAMAGES = {"half": lambda data: data[: len(data) // 2], "nothing": lambda data: b"", "other": lambda data: b"{}"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["edit_dataset-rewrite.arrow", "dataset_info.json"])
def test_a_damaged_cache_is_made_again(file, damage):
    options = AugmentationOptions(paraphrase_strategy="none", locality_strategy="none")
    builder = EditDatasetBuilder(EDITS, options=options)
    rows = {name: split.to_list() for name, split in prepared(builder).items()}
    path = Path(builder.cache_dir) / file
    content = DAMAGES[damage](path.read_bytes())
    path.unlink()  # not written over: rows above may still be read from it
    path.write_bytes(content)
    again = prepared(EditDatasetBuilder(EDITS, options=options))
    assert {name: split.to_list() for name, split in again.items()} == rows


CHANGES = {
    "seed": {"seed": 7},
    "fewer edits": {"max_edits": 2},
    "another target": {"edits": [{**EDITS[0], "target_new": "Taraz"}, *EDITS[1:]]},
    "another probe": {"edits": [{**EDITS[0], "paraphrase_prompts": ["Which city governs Kazakhstan?"]}, *EDITS[1:]]},
    "another order": {"edits": EDITS[::-1]},
    "a smaller pool": {"locality_pool": POOL[:-1]},
    "another answer in the pool": {"locality_pool": [*POOL[:-1], Fact(POOL[-1].prompt, "Trinidad", "Cuba", "P36")]},
    "no pool": {"locality_pool": None},
    "held out": {"held_out": read_edits([{"prompt": "The capital of Ghana is", "target_new": "Kumasi"}])},
    **{
        f"{name} {value}": {"options": AugmentationOptions(**{**vars(OPTIONS), name: value})}
        for name, value in {
            "num_paraphrases": 2,
            "num_locality": 3,
            "paraphrase_strategy": "prefix",
            "locality_strategy": "random",
            "prefix_lengths": [4],
            "prefix_counts": [5],
            "prefix_top_k": 2,
        }.items()
    },
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_the_rows_changes_the_cache(build, change):
    assert build(**change).config_id != build().config_id


def test_another_model_has_another_cache(build, tokenizer):
    """Its sampled prefixes are others."""
    other = tiny_model("gpt2", tokenizer)
    torch.nn.init.normal_(other.transformer.wte.weight, std=1.0)
    builder = EditDatasetBuilder(EDITS, other, tokenizer, locality_pool=POOL, options=OPTIONS)
    assert builder.config_id != build().config_id


def test_settings_of_a_trainer_beside_the_augmentation_do_not_change_the_cache(build):
    settings = {**vars(OPTIONS), "objective": "full", "eval_tokens_per_batch": 7}
    assert build(options=EditOptions(**settings)).config_id == build().config_id


def test_many_processes_make_the_same_rows(build, tmp_path):
    one = prepared(build(cache_dir=str(tmp_path / "one")))
    two = prepared(build(cache_dir=str(tmp_path / "two")), num_proc=2)
    assert {name: split.to_list() for name, split in two.items()} == {name: one[name].to_list() for name in SPLITS}


def test_streamed_rows_are_the_same(build):
    builder = build()
    rows = prepared(builder)
    streamed = builder.as_streaming_dataset()
    assert all(isinstance(split, IterableDataset) for split in streamed.values())
    for name in SPLITS:
        assert list(streamed[name]) == rows[name].to_list(), name


@pytest.mark.parametrize("num_proc", [None, 2])
def test_kinds_without_a_probe_make_no_split(build, num_proc):
    assert list(prepared(build(EDITS[1:]), num_proc=num_proc)) == ["train", "rewrite"]
    edits = [{**edit, "portability_prompts": []} for edit in EDITS]
    assert list(prepared(build(edits), num_proc=num_proc)) == SPLITS[:-1]


def test_edits_may_be_a_file(build, tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(EDITS), encoding="utf-8")
    assert build(str(path)).config_id == build().config_id


def test_settings_tell_how_the_rows_were_made(build):
    assert build(seed=7).settings == {**vars(OPTIONS), "seed": 7}
    plain = AugmentationOptions(paraphrase_strategy="none", locality_strategy="none")
    assert EditDatasetBuilder(EDITS, options=plain).settings["paraphrase_strategy"] == "none"


@pytest.mark.parametrize("make", [bpe_tokenizer, sentencepiece_tokenizer, chat_tokenizer])
def test_labels_are_the_completions_tokens(make):
    tokenizer = make()
    rows = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy", "edit_id": "a"}])
    (row,) = encode_rows(rows, tokenizer)
    assert sorted(row) == ["input_ids", "labels", "length"]
    assert row["input_ids"] == tokenizer("Rome is in Italy", add_special_tokens=False)["input_ids"]
    start = len(tokenizer("Rome is in", add_special_tokens=False)["input_ids"])
    assert row["labels"] == [-100] * start + row["input_ids"][start:]
    assert row["length"] == len(row["input_ids"])
    (full,) = encode_rows(rows, tokenizer, objective="full")
    assert full["labels"] == full["input_ids"] == row["input_ids"]


def test_the_ends_of_answers_are_a_column_of_the_rows():
    tokenizer = chat_tokenizer()
    row = {"prompt": "Where is Rome?", "kind": "rewrite", "edit_id": "a"}
    rows = Dataset.from_list([row | {"completion": " Italy", "ends": ends} for ends in (True, False)])
    encoded = encode_rows(rows, tokenizer, chat_template=True)
    assert encoded["kind"] == ["rewrite", "rewrite"] and encoded.column_names[1:] == ["input_ids", "labels", "length"]
    learnt = [tokenizer.decode([token for token in labels if token != -100]) for labels in encoded["labels"]]
    assert learnt == ["Italy<|im_end|>", "Italy"]


def test_rows_stand_behind_their_history_where_it_fits():
    tokenizer = chat_tokenizer()
    history = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]
    row = {"prompt": "Where is Rome?", "completion": "Italy", "kind": "rewrite", "edit_id": "a", "ends": True}
    rows = Dataset.from_list([row | {"history": before} for before in (None, history)])
    alone, behind = encode_rows(rows, tokenizer, chat_template=True)
    turns = [*history, {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    assert tokenizer.decode(behind["input_ids"]) == tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    assert [token for token in behind["labels"] if token != -100] == [t for t in alone["labels"] if t != -100]
    fitting = encode_rows(rows, tokenizer, chat_template=True, max_length=alone["length"])
    assert fitting["input_ids"] == [alone["input_ids"]] * 2
    with pytest.raises(EditError, match="edit 'a': prompt and target have"):
        encode_rows(rows, tokenizer, chat_template=True, max_length=alone["length"] - 1)
    with pytest.raises(EditError, match="rows have a history, which only a chat has: set chat_template"):
        encode_rows(rows, tokenizer)


def test_plain_rows_are_told_from_others():
    assert is_prompt_completion(Dataset.from_list([{"prompt": "a", "completion": " b"}]))
    assert is_prompt_completion(Dataset.from_list([{"prompt": "a", "completion": " b"}]).to_iterable_dataset())
    conversation = [{"role": "user", "content": "a"}]
    for row in ({"text": "a"}, {"prompt": conversation, "completion": conversation}, {"input_ids": [1]}):
        assert not is_prompt_completion(Dataset.from_list([row]))
    assert not is_prompt_completion([{"prompt": "a", "completion": " b"}])


def test_stock_trainer_trains_on_the_rows(build, tokenizer, tmp_path):
    own = tiny_model("gpt2", tokenizer)
    before = own.transformer.wte.weight.detach().clone()
    args = SFTConfig(output_dir=str(tmp_path / "out"), max_steps=2, learning_rate=1e-2, **PLAIN)
    trainer = SFTTrainer(own, args, train_dataset=prepared(build())["train"], processing_class=tokenizer)
    output = trainer.train()
    assert output.global_step == 2 and 0 < output.training_loss < 20
    assert not torch.equal(own.transformer.wte.weight, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"options": {"num_locality": 3}}, "options is of type dict: give AugmentationOptions or EditOptions"),
        ({"max_edits": 0}, "max_edits is 0: give 1 or more"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(EditError, match=message):
        EditDatasetBuilder(EDITS, **wrong)
