"""Tokenizers as users have them: padding never reaches a model as a number that it does not have."""

import copy

import pytest
from tiny import bpe_tokenizer, eloquent

from hf_ftedit import EditConfig, EditTrainer, score_pairs
from hf_ftedit.models.generation import greedy_answers, whole_answers

PROMPTS = ["Rome is in", "The capital of Kazakhstan is the old", "Oslo", "Bergen and Oslo lie between"]
TARGETS = ["Italy", "Astana", "a border", "Norway"]
EDITS = [{"prompt": prompt, "target_new": target} for prompt, target in zip(PROMPTS, TARGETS, strict=True)]


def beyond(tokenizer, model):
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})


def none(tokenizer, model):
    tokenizer.pad_token = None


def left(tokenizer, model):
    tokenizer.padding_side = tokenizer.truncation_side = "left"


def resized(tokenizer, model):
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<new>"]})
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    model.get_output_embeddings().weight.data[-64:] = 0  # tokens that nobody says


@pytest.mark.parametrize("change", [beyond, none, left, resized])
def test_answers_scores_and_training_are_those_of_a_plain_tokenizer(change, tmp_path):
    tokenizer = bpe_tokenizer()
    model = eloquent("llama", tokenizer)
    expected = [
        whole_answers(model, tokenizer, PROMPTS),
        greedy_answers(model, tokenizer, PROMPTS),
        score_pairs(model, tokenizer, PROMPTS, TARGETS).logprob.round(4).tolist(),
    ]
    theirs, changed = bpe_tokenizer(), copy.deepcopy(model)
    change(theirs, changed)
    if change is not resized:
        assert expected == [
            whole_answers(changed, theirs, PROMPTS),
            greedy_answers(changed, theirs, PROMPTS),
            score_pairs(changed, theirs, PROMPTS, TARGETS).logprob.round(4).tolist(),
        ]
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 1}
    args = EditConfig(output_dir=str(tmp_path), paraphrase_strategy="none", num_locality=2, **settings)
    trainer = EditTrainer(changed, args, train_dataset=EDITS, processing_class=theirs)
    trainer.train()
    assert trainer.score_edits()["n_edits"] == len(EDITS)
