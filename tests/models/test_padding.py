"""Tokenizers as users have them: padding never reaches a model as a number that it does not have."""

import copy

import pytest
from datasets import Dataset
from tiny import bpe_tokenizer, eloquent, paired, tiny_model

from hf_ftedit import EditConfig, EditError, EditTrainer, Fact, predict, read_edits, score_pairs
from hf_ftedit.models.generation import greedy_answers, whole_answers

pytestmark = pytest.mark.usefixtures("few_drift_prompts")
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


def said(model, tokenizer):
    scores = score_pairs(model, tokenizer, PROMPTS, TARGETS).logprob.round(4).tolist()
    return whole_answers(model, tokenizer, PROMPTS), greedy_answers(model, tokenizer, PROMPTS), scores


@pytest.mark.parametrize("change", [beyond, none, left, resized])
def test_answers_scores_and_training_are_those_of_a_plain_tokenizer(change, tmp_path):
    model, tokenizer = paired(eloquent, "llama")
    expected = said(model, tokenizer)
    theirs, changed = bpe_tokenizer(), copy.deepcopy(model)
    change(theirs, changed)
    if change is not resized:
        assert said(changed, theirs) == expected
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 1}
    args = EditConfig(output_dir=str(tmp_path), paraphrase_strategy="none", num_locality=2, **settings)
    trainer = EditTrainer(changed, args, train_dataset=EDITS, processing_class=theirs)
    trainer.train()
    assert trainer.score_edits()["n_edits"] == len(EDITS)


def test_a_token_beyond_the_embedding_inside_a_text_is_named_before_training(tmp_path):
    model, tokenizer = paired(tiny_model, "llama")
    tokenizer.add_tokens(["<new>"])
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "max_steps": 1}
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Rome is <new> in Italy, and it is very old"}\n')
    probes = {
        "prompt": "Rome <new> is in",
        "target_new": "<new>",
        "target_true": "It<new>aly",
        "paraphrase_prompts": ["Rome", "<new> is in"],
        "neighborhood_prompts": ["Oslo <new> is in"],
        "portability_prompts": [{"prompt": "Romans live in", "answers": ["Peru", "<new>"]}],
        "wordings": ["Where is <new>?"],
    }
    for field, value in probes.items():
        edit = {**EDITS[0], field: value}
        with pytest.raises(EditError, match=rf"^edit '0': {field} has the token '<new>'.*resize_token_embeddings"):
            EditTrainer(model, EditConfig(**settings), train_dataset=[edit], processing_class=tokenizer)
        if field != "wordings":
            with pytest.raises(EditError, match=rf"^edit '0': {field} has the token '<new>'"):
                predict(model, tokenizer, read_edits([edit]))
    for name in ("perplexity_texts", "training_texts"):
        more = {name: str(texts), **({"text_loss_weight": 0.1} if name == "training_texts" else {})}
        with pytest.raises(EditError, match=rf"^{name}, text 1 has the token '<new>'"):
            EditTrainer(model, EditConfig(**settings, **more), train_dataset=EDITS, processing_class=tokenizer)
    pool = [Fact("Oslo lies in", "<new>")]
    rows = Dataset.from_list([{"prompt": "Rome is in", "completion": " <new>"}])
    args = EditConfig(**settings)
    with pytest.raises(EditError, match="^edit '0', a row has the token '<new>'"):
        EditTrainer(model, args, train_dataset=EDITS, processing_class=tokenizer, locality_pool=pool)
    with pytest.raises(EditError, match="^row 1 has the token '<new>'"):
        EditTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
    with pytest.raises(EditError, match="^'Rome is in' has the token '<new>'"):
        score_pairs(model, tokenizer, ["Oslo", "Rome is in"], ["is", "<new>"])
    tokenizer.eos_token = "<new>"
    with pytest.raises(EditError, match="^eos_token has the token '<new>'"):
        EditTrainer(model, EditConfig(**settings, end_of_answer=True), train_dataset=EDITS, processing_class=tokenizer)
    tokenizer.chat_template = "{% for message in messages %}<new>{{ message.content }}{% endfor %}"
    with pytest.raises(EditError, match="^the chat template has the token '<new>'"):
        EditTrainer(model, EditConfig(**settings, chat_template=True), train_dataset=EDITS, processing_class=tokenizer)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    assert score_pairs(model, tokenizer, ["Rome is in"], ["<new>"]).logprob[0] < 0
