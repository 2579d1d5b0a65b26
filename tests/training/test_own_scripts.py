"""What users combine in scripts of their own: their folders, callbacks, optimizers, templates and adapters."""

import copy
import json
import logging

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from tiny import chat_tokenizer, eloquent, paired, saved
from tiny_edits import EDITS, PLAIN, config, editor, fitted, history, lora
from transformers import TrainerCallback
from trl import SFTConfig

from hf_ftedit import EditConfig, EditError, EditTrainer
from hf_ftedit.models.loading import weights_fingerprint
from hf_ftedit.training.setup import as_edit_config

CITIES = {"Oz": "Bo", "Ur": "Li"}
ROWS = [{"prompt": f"The capital of {place} is", "completion": f" {city}"} for place, city in CITIES.items()]
ASKED = {**EDITS[0], "prompt": "What is the capital of Kazakhstan?"}  # in a chat
QAEDIT = [{"prompt": edit["prompt"], "target": edit["target_new"], "rephrase": edit["prompt"]} for edit in EDITS]


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "edits.jsonl"])
def test_files_of_others_are_not_replaced(base, tokenizer, tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(EditError, match=f"holds '{name}', which hf-ftedit did not write; give another --output_dir"):
        editor(base, tokenizer, config(folder))
    trainer = editor(base, tokenizer, config(tmp_path / "own", max_steps=1))
    with pytest.raises(EditError, match="did not write"):
        trainer.save_model(str(folder))
    assert (folder / name).read_text() == "mine" and [file.name for file in folder.iterdir()] == [name]
    trainer.save_model()
    trainer.save_model()  # what it wrote itself may be replaced
    with pytest.raises(EditError, match="is a file; give a folder"):
        editor(base, tokenizer, config(folder / name))


def test_a_card_beside_checkpoints_of_stock_trainer_is_no_other_model(base, tokenizer, tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "README.md").write_text("by TRL")
    editor(base, tokenizer, config(tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EditError, match="holds 'adapter_model.safetensors'"):
        editor(base, tokenizer, config(tmp_path))


def test_scores_are_of_the_weights_as_they_are_now(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path, max_steps=2, learning_rate=0.1))
    trained, before = trainer.score_edits(), trainer.score_edits(edited=False)
    assert trainer.score_edits() is trained
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data *= 0
    found = trainer.predict_edits()["logprob"]
    assert found == pytest.approx(trainer.predict_edits(edited=False)["logprob"], abs=1e-6)
    assert trainer.score_edits()["efficacy"] == before["efficacy"]


def test_a_loss_may_be_asked_for_with_its_outputs(tmp_path):
    model, tokenizer = paired(eloquent, "llama", chat_tokenizer, context=512)

    class Own(EditTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            assert outputs["loss"] is loss and outputs["logits"].shape[1] == len(tokenizer)
            return (loss, outputs) if return_outputs else loss

    settings = {"chat_template": True, "max_steps": 3, "per_device_train_batch_size": 4, "text_loss_weight": 0.0}
    losses = []
    for kind in (EditTrainer, Own):
        args = config(tmp_path / kind.__name__, num_paraphrases=1, **settings)
        trainer = kind(copy.deepcopy(model), args, train_dataset=[ASKED], processing_class=tokenizer)
        trainer.train()
        losses.append(history(trainer, "loss"))
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_rows_that_were_trained_have_a_loss_of_their_own(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1, text_loss_weight=0.3))
    rows = trainer.train_dataset
    assert "weight" in rows.column_names
    plain = rows.remove_columns([name for name in rows.column_names if name == "weight" or name.startswith("ref_")])
    assert trainer.evaluate(rows)["eval_loss"] == trainer.evaluate(plain)["eval_loss"] < 20


def test_an_optimizer_without_the_trained_weights_is_told(base, tokenizer, tmp_path):
    with pytest.raises(EditError, match="holds no weight that is trained.* give optimizer_cls_and_kwargs"):
        editor(base, tokenizer, config(tmp_path), optimizers=(torch.optim.AdamW(base.parameters()), None))
    adapted = get_peft_model(copy.deepcopy(base), lora())
    optimizer = torch.optim.AdamW(weight for weight in adapted.parameters() if weight.requires_grad)
    EditTrainer(
        adapted, config(tmp_path), train_dataset=EDITS, processing_class=tokenizer, optimizers=(optimizer, None)
    )


def test_several_active_adapters_are_told(base, tokenizer, tmp_path):
    model = get_peft_model(copy.deepcopy(base), lora(), adapter_name="a")
    model.add_adapter("b", lora())
    model.base_model.set_adapter(["a", "b"])
    with pytest.raises(EditError, match="several active adapters, and one is trained and saved"):
        EditTrainer(model, config(tmp_path), train_dataset=EDITS, processing_class=tokenizer)


def test_activations_are_recomputed_by_the_older_name_too(tmp_path):
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    assert EditConfig(**settings).activation_checkpointing is False
    args = EditConfig(gradient_checkpointing=True, **settings)
    assert args.activation_checkpointing is args.gradient_checkpointing is True


def test_a_template_of_the_tokenizers_own_goes_with_the_adapter(tmp_path):
    words = chat_tokenizer()
    folder = saved(tmp_path / "base", eloquent("llama", words, context=512), words)
    settings = {"chat_template": True, "max_steps": 1, "num_paraphrases": 1, "num_locality": 0}
    template, names = words.chat_template, []
    for name, own in (("same", template), ("own", template.replace("im_start|>assistant", "im_start|>Assistant"))):
        words.chat_template = own
        out = tmp_path / name
        EditTrainer(folder, config(out, **settings), train_dataset=[ASKED], processing_class=words).save_model()
        names.append((out / "chat_template.jinja").is_file())
    assert own != template and names == [False, True]
    assert (out / "chat_template.jinja").read_text() == own


def test_tokens_that_were_added_in_memory_are_told(tmp_path, tokenizer, base):
    folder = saved(tmp_path / "base", copy.deepcopy(base), tokenizer)
    model, longer = type(base).from_pretrained(folder), copy.deepcopy(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 8)
    EditTrainer(model, config(tmp_path / "padded"), train_dataset=EDITS, processing_class=tokenizer)
    longer.add_tokens([f"new-{number}" for number in range(8)])
    model = type(base).from_pretrained(folder)
    model.resize_token_embeddings(len(longer))
    with pytest.raises(EditError, match=f"model has {len(longer)} tokens, and .* has {len(tokenizer)}"):
        EditTrainer(model, config(tmp_path / "out"), train_dataset=EDITS, processing_class=longer)
    EditTrainer(model, config(tmp_path / "all", full_finetune=True), train_dataset=EDITS, processing_class=longer)


def test_an_error_of_the_users_code_stays_what_it_is(base, tokenizer, tmp_path):
    class Faulty(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            return json.loads("no json")

    with pytest.raises(json.JSONDecodeError):
        fitted(base, tokenizer, config(tmp_path, max_steps=1), callbacks=[Faulty()])


def test_edits_of_any_format_may_be_tables(base, tokenizer, tmp_path):
    table = Dataset.from_list(QAEDIT)
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1), train_dataset=table, eval_dataset=table)
    assert len(trainer.edit_records) == len(trainer.task.edits) == 3
    assert trainer.evaluate(table)["eval_efficacy"] == trainer.evaluate()["eval_efficacy"]
    named = table.rename_columns({"target": "Target new", "prompt": "Prompt"}).remove_columns("rephrase").to_pandas()
    assert len(editor(base, tokenizer, config(tmp_path, max_steps=1), train_dataset=named).edit_records) == 3


def test_a_list_of_rows_is_told(base, tokenizer, tmp_path):
    with pytest.raises(EditError, match="train_dataset is a list of rows: give datasets.Dataset.from_list"):
        editor(base, tokenizer, config(tmp_path), train_dataset=ROWS)
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1))
    with pytest.raises(EditError, match="eval_dataset is of type list: give .* a Dataset of rows"):
        trainer.evaluate(ROWS)


def test_rows_alone_are_not_pushed(base, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_ftedit.hub.check_pushable", lambda name, token: None)
    args = config(tmp_path, push_to_hub=True, hub_model_id="user/rows")
    with pytest.raises(EditError, match="no edit records to push"):
        editor(base, tokenizer, args, train_dataset=Dataset.from_list(ROWS), locality_pool=None)


def test_bad_edits_to_evaluate_are_skipped_where_asked(base, tokenizer, tmp_path):
    mixed = [*EDITS, {"edit_id": "empty", "prompt": "", "target_new": "x"}]
    trainer = editor(base, tokenizer, config(tmp_path, skip_invalid=True), eval_dataset=mixed)
    assert len(trainer.edit_records) == 3


def test_a_default_learning_rate_of_trl_is_told(tmp_path, caplog):
    for rate, is_told in ({}, True), ({"learning_rate": 1e-3}, False):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            as_edit_config(SFTConfig(output_dir=str(tmp_path), **PLAIN, **rate))
        assert ("the default of SFTConfig, teaches few edits" in caplog.text) is is_told


def test_the_whole_fingerprint_sees_every_weight(base):
    other = copy.deepcopy(base)
    assert weights_fingerprint(other, whole=True) == weights_fingerprint(base, whole=True)
    with torch.no_grad():
        weight = next(weight for weight in other.parameters() if weight.numel() > 1000)
        weight.view(-1)[1] += 1  # between the elements of the sample
    assert weights_fingerprint(other) == weights_fingerprint(base)
    assert weights_fingerprint(other, whole=True) != weights_fingerprint(base, whole=True)
