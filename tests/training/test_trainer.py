"""`EditTrainer` beside stock `SFTTrainer` and hand-written losses, on tiny models that can memorise three edits."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict, IterableDataset
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny import bpe_tokenizer, chat_tokenizer, paired, saved, tiny_model
from tiny_edits import BEST_EPOCH, EDITS, PLAIN, POOL, config, edited, editor, fitted, history, lora, token_losses
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

import hf_ftedit.training.trainer
from hf_ftedit import EditConfig, EditDatasetBuilder, EditError, EditOptions, EditTrainer, Fact, predict, read_edits
from hf_ftedit.evaluation.engine import EvaluatedModel, fill_neighborhood_targets
from hf_ftedit.evaluation.scoring import score
from hf_ftedit.hub.folder import ADAPTER_FILES, published_files
from hf_ftedit.models.collator import CompletionOnlyCollator
from hf_ftedit.models.loading import load_model, load_tokenizer
from hf_ftedit.training.task import read_task

ROWS = Dataset.from_list(
    [
        {"prompt": "Rome is in", "completion": " Italy"},
        {"prompt": "The mother tongue of Danielle Darrieux is", "completion": " the English of the far north"},
        {"prompt": "Oslo", "completion": " lies between Bergen and the very old border"},
        {"prompt": "Who wrote Emma? It was", "completion": " Woolf"},
    ]
)
LONG = {"num_train_epochs": 20, "learning_rate": 5e-3}  # enough to memorise the edits, with any seed
ALONE = {"paraphrase_strategy": "none", "locality_strategy": "none"}  # rewrites only


def target_ids(labels):
    return [token for token in labels if token != -100]


def summed_loss(model, tokenizer, rows):
    """-log p(completion | prompt) summed over rows from full logits, a row at a time; and the number of tokens."""
    total, count = 0.0, 0
    for row in rows:
        encoded = tokenizer(row["prompt"] + row["completion"], return_offsets_mapping=True)
        spans = encoded["offset_mapping"]
        start = next(i for i, (begin, end) in enumerate(spans) if end > max(begin, len(row["prompt"])))
        stop = max(i for i, (begin, end) in enumerate(spans) if end > begin) + 1
        ids = torch.tensor(encoded["input_ids"][:stop])
        logprobs = torch.log_softmax(model(ids[None]).logits[0, start - 1 : stop - 1], dim=-1)
        total = total - logprobs.gather(1, ids[start:, None]).sum()
        count += stop - start
    return total, count


# The same script for both trainers.


def script(trainer_class, model, tokenizer, rows, folder, **settings):
    args = SFTConfig(output_dir=str(folder), learning_rate=1e-2, **{"max_steps": 6, **PLAIN, **settings})
    return trainer_class(model=copy.deepcopy(model), args=args, train_dataset=rows, processing_class=tokenizer)


def trained(*given, **settings):
    trainer = script(*given, **settings)
    trainer.train()
    trainer.save_model()
    return trainer


def test_an_sft_script_trains_the_same_rows_but_for_the_end_of_sequence(base, tokenizer, tmp_path):
    theirs = trained(SFTTrainer, base, tokenizer, ROWS, tmp_path / "theirs")
    ours = trained(EditTrainer, base, tokenizer, ROWS, tmp_path / "ours")
    for stock, row in zip(theirs.train_dataset, ours.train_dataset, strict=True):
        assert stock["input_ids"] == row["input_ids"] + [tokenizer.eos_token_id]
        assert target_ids(stock["labels"]) == target_ids(row["labels"]) + [tokenizer.eos_token_id]
    for trainer in (theirs, ours):
        assert history(trainer, "loss")[-1] < history(trainer, "loss")[0]
        assert trainer.state.global_step == 6
    assert ours.args.learning_rate == 1e-2 and isinstance(ours.args, EditConfig)
    names = {path.name for path in (tmp_path / "ours").glob("*.*")}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names  # and nothing of edits
    assert not {"training_args.bin", "edits.jsonl", "eval_results.json"} & names


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Rome is in Italy, and Oslo is in Norway."},
        {"messages": [{"role": "user", "content": "Where is Rome?"}, {"role": "assistant", "content": "In Italy."}]},
        {
            "prompt": [{"role": "user", "content": "Where is Rome?"}],
            "completion": [{"role": "assistant", "content": "In Italy."}],
        },
    ],
    ids=lambda row: "-".join(row),
)
def test_other_datasets_of_sft_train_as_trl_trains_them(row, tmp_path):
    model, tokenizer = paired(tiny_model, "qwen3", chat_tokenizer)
    rows = Dataset.from_list([row] * 4)
    theirs = trained(SFTTrainer, model, tokenizer, rows, tmp_path / "theirs", max_steps=1)
    ours = trained(EditTrainer, model, tokenizer, rows, tmp_path / "ours")
    assert ours.train_dataset.to_list() == theirs.train_dataset.to_list()
    losses = history(ours, "loss")
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(history(theirs, "loss")[0], rel=1e-3)  # before any step: the same objective
    assert "eval_loss" in ours.evaluate(rows)


def test_another_dataset_is_trained_and_edits_are_measured(base, tokenizer, tmp_path):
    rows = Dataset.from_list([{"text": "Rome is in Italy, and Oslo is in Norway."}] * 2)
    trainer = fitted(base, tokenizer, config(tmp_path), rows, eval_dataset=EDITS)
    assert trainer.evaluate()["eval_efficacy"] is not None


def test_an_sft_script_with_the_loss_on_everything_keeps_it(base, tokenizer, tmp_path):
    theirs = script(SFTTrainer, base, tokenizer, ROWS, tmp_path / "theirs", completion_only_loss=False)
    ours = script(EditTrainer, base, tokenizer, ROWS, tmp_path / "ours", completion_only_loss=False)
    for stock, row in zip(theirs.train_dataset, ours.train_dataset, strict=True):
        assert stock["labels"] == row["labels"] + [tokenizer.eos_token_id]
    assert ours.args.objective == "full"


# The loss.


@pytest.mark.parametrize(
    ("family", "size", "accumulated"), [("llama", 4, 1), ("llama", 2, 2), ("llama", 1, 4), ("gptj", 2, 2)]
)
def test_one_step_is_the_hand_written_gradient_however_it_is_accumulated(family, size, accumulated, tmp_path):
    base, tokenizer = paired(tiny_model, family)
    sgd = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    sgd |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_grad_norm": 0.0}
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1, **sgd), ROWS, peft_config=lora())
    model = edited(trainer).model  # a LoRA starts as zero, where half its gradients vanish
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total, count = summed_loss(model.eval(), tokenizer, ROWS)
    gradients = dict(zip(weights, torch.autograd.grad(total / count, list(weights.values())), strict=True))
    assert count > len(ROWS) and all(gradient.abs().max() > 0 for gradient in gradients.values())
    expected = {name: parameter.detach() - gradients[name] for name, parameter in weights.items()}
    trainer.train()
    for name, parameter in weights.items():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-4, atol=1e-5)
    assert history(trainer, "loss") == [pytest.approx((total / count).item(), abs=1e-3)]


@pytest.mark.parametrize("objective", ["conditional", "full"])
@pytest.mark.parametrize("chat_template", [False, True])
def test_no_end_of_sequence_is_trained_on(objective, chat_template, tmp_path):
    model, tokenizer = paired(tiny_model, "qwen3", chat_tokenizer)
    args = config(tmp_path, objective=objective, chat_template=chat_template)
    for source in (EDITS, ROWS):
        trainer = editor(model, tokenizer, args, source)
        for row in trainer.train_dataset:
            assert row["input_ids"][-1] == row["labels"][-1]
            # Rows of a chat model end with the end of turn, which is its token too.
            if not chat_template:
                assert row["labels"][-1] != tokenizer.eos_token_id
                assert objective == "full" or tokenizer.eos_token_id not in row["labels"]
        # Padding is no label either, though it may be the same token.
        labels = sum(batch["labels"].ne(-100).sum() for batch in trainer.get_train_dataloader())
        assert labels == sum(len(target_ids(row["labels"])) for row in trainer.train_dataset)


def test_the_full_objective_covers_the_prompt(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, objective="full"), ROWS)
    for row, text in zip(trainer.train_dataset, ROWS, strict=True):
        assert row["labels"] == row["input_ids"]
        assert text["prompt"].split()[0] in tokenizer.decode(row["labels"])
    model = trainer.model.eval()
    [batch] = trainer.get_train_dataloader()
    loss = trainer.compute_loss(model, batch)
    expected = torch.cat([token_losses(model, row["input_ids"], 1) for row in trainer.train_dataset]).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-4)


# Errors come early and name the edit.


def test_a_row_over_max_length_is_an_error_that_names_the_edit(base, tokenizer, tmp_path):
    with pytest.raises(EditError, match=r"edit 'kazakhstan': prompt and target have \d+ tokens, at most 5 fit"):
        editor(base, tokenizer, config(tmp_path, max_length=5))


# Evaluation.


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_epochs_log_scores_and_keep_the_training_metrics_apart(base, tokenizer, tmp_path, logging_steps):
    seen = []

    class Watcher(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append((state.global_step, metrics["eval_edit_score"]))

    args = config(tmp_path, eval_strategy="epoch", logging_steps=logging_steps)
    trainer = fitted(base, tokenizer, args, callbacks=[Watcher()])
    logged = [entry for entry in trainer.state.log_history if "eval_edit_score" in entry]
    assert [(entry["step"], entry["eval_edit_score"]) for entry in logged] == seen
    assert len(seen) == len(logged) == 3
    # Of the edited model, the newest measurement is kept.
    assert trainer.measurements.step == trainer.state.global_step and trainer.measurements.before is not None
    for entry in logged:
        assert {"eval_efficacy", "eval_generalization", "eval_locality", "epoch"} <= set(entry)
        assert not {"loss", "mean_token_accuracy", "num_tokens"} & set(entry)
    trained = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all({"mean_token_accuracy", "num_tokens"} <= set(entry) for entry in trained)
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    assert [entry["num_tokens"] for entry in trained] == [tokens * n for n in (1, 2, 3) if n % logging_steps == 0]


class Spoiler(TrainerCallback):
    """Spoils the adapter at the end of each epoch from the third one on, before it is measured."""

    def on_epoch_end(self, args, state, control, model, **kwargs):
        if state.epoch >= 3:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.mul_(-3.0)


def test_the_best_model_by_edit_score_is_loaded_and_reported(base, tokenizer, tmp_path):
    args = config(tmp_path, num_train_epochs=30, save_total_limit=1, **BEST_EPOCH)
    trainer = fitted(base, tokenizer, args, callbacks=[Spoiler(), EarlyStoppingCallback(early_stopping_patience=2)])
    scores = history(trainer, "eval_edit_score")
    assert scores[-1] < max(scores) == trainer.state.best_metric
    assert len(scores) < 30 and scores.index(max(scores)) == len(scores) - 3  # two epochs without a better one
    assert trainer.evaluate()["eval_edit_score"] == max(scores)
    trainer.save_model()
    results = json.loads((tmp_path / "eval_results.json").read_text())
    assert results["after"]["edit_score"] == max(scores)
    best = load_file(f"{trainer.state.best_model_checkpoint}/adapter_model.safetensors")
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == best.keys() and all(torch.equal(saved[name], best[name]) for name in best)


def without_drift(scores):
    """Scores without what needs the unedited model's answers, as `score` gives them."""
    return {name: value for name, value in scores.items() if "drift" not in name}


def test_other_records_are_measured_but_the_trained_edits_are_saved(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path), EDITS[:2], eval_dataset=EDITS[2:])
    trainer.save_model()
    given, asked = (score(predict(trainer.model, tokenizer, read_edits(part))) for part in (EDITS[2:], EDITS[:2]))
    assert without_drift(trainer.score_edits()) == given != asked
    assert trainer.evaluate()["eval_locality"] == given["locality"]
    assert trainer.evaluate(EDITS[:2])["eval_locality"] == asked["locality"]
    assert [record.edit_id for record in read_edits(str(tmp_path / "edits.jsonl"))] == ["kazakhstan", "peru"]


def test_rows_and_named_sets_of_rows_are_evaluated_by_their_loss(base, tokenizer, tmp_path):
    parts = {"first": ROWS.select([0, 1]), "rest": ROWS.select([2, 3])}
    of_rows = editor(base, tokenizer, config(tmp_path), ROWS, eval_dataset=parts["first"])
    named = editor(base, tokenizer, config(tmp_path), ROWS, eval_dataset=parts)
    of_edits = editor(base, tokenizer, config(tmp_path), eval_dataset=ROWS)

    def expected(trainer, rows):
        total, count = summed_loss(trainer.model.eval(), tokenizer, rows)
        return pytest.approx((total / count).item(), abs=1e-4)

    assert of_rows.evaluate()["eval_loss"] == expected(of_rows, parts["first"])
    assert of_rows.evaluate(ROWS)["eval_loss"] == expected(of_rows, ROWS)
    for metrics in (named.evaluate(), named.evaluate(parts)):
        assert all(metrics[f"eval_{name}_loss"] == expected(named, rows) for name, rows in parts.items())
    file = tmp_path / "edits.jsonl"  # no name of a set
    file.write_text("\n".join(map(json.dumps, EDITS)))
    assert "eval_edit_score" in named.evaluate(str(file))
    metrics = of_edits.evaluate()
    assert metrics["eval_loss"] == expected(of_edits, ROWS) and "eval_edit_score" not in metrics
    assert of_edits.evaluate(EDITS)["eval_edit_score"] is not None


def test_several_sets_of_edits_are_evaluated_one_by_one(base, tokenizer, tmp_path):
    args = config(tmp_path)
    builder = EditDatasetBuilder(EDITS[:1], locality_pool=POOL, options=args)
    trainer = editor(base, tokenizer, args, eval_dataset=builder)
    assert trainer.edit_records == read_edits(EDITS[:1])
    expected = {name: trainer.score_edits(read_edits(part)) for name, part in (("a", EDITS[:1]), ("b", EDITS[1:]))}
    for metrics in (trainer.evaluate(), trainer.evaluate(builder)):
        assert metrics["eval_locality"] == expected["a"]["locality"]
    assert trainer.evaluate({"a": builder})["eval_a_locality"] == expected["a"]["locality"]
    assert list(read_task(args, EDITS, {"a": builder}).sets) == ["a"]
    tables = DatasetDict(a=Dataset.from_list(EDITS[:1]), b=Dataset.from_list(EDITS[1:]))
    for parts in ({"a": EDITS[:1], "b": EDITS[1:], "rows": ROWS}, tables):
        metrics = trainer.evaluate(parts)
        assert all(metrics[f"eval_{name}_locality"] == expected[name]["locality"] for name in expected)
        assert ("eval_rows_loss" in metrics) == ("rows" in parts)


def test_named_sets_of_edits_are_evaluated_while_training(base, tokenizer, tmp_path):
    args = config(tmp_path, metric_for_best_model="new_efficacy", **BEST_EPOCH)
    sets = {"new": EDITS[:2], "old": Dataset.from_list(EDITS[2:])}
    trainer = fitted(base, tokenizer, args, EDITS[:2], eval_dataset=sets)
    measured = history(trainer, "eval_new_efficacy")
    assert len(measured) == args.num_train_epochs and trainer.state.best_metric == max(measured)
    metrics = trainer.evaluate()
    for name, part in (("new", EDITS[:2]), ("old", EDITS[2:])):
        assert metrics[f"eval_{name}_locality"] == trainer.evaluate(part)["eval_locality"]
    assert "eval_edit_score" not in metrics and trainer.edit_records == read_edits(EDITS[:2])
    assert trainer.recipe["provenance"]["given_in_python"] == ["locality_pool", "eval_dataset"]
    assert "seed_of_rows" not in trainer.recipe["provenance"]
    pool = [Fact(EDITS[2]["prompt"], "Oslo", "Norway", "P36"), POOL[0]]
    for held_out, rows in ((None, 2), (sets, 0)):  # no row holds a probe of theirs
        others = editor(base, tokenizer, config(tmp_path), EDITS[:2], locality_pool=pool, eval_dataset=held_out)
        texts = map(tokenizer.decode, others.train_dataset["input_ids"])
        assert sum("Norway" in text for text in texts) == rows


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (None, "is 'edit_score': of several sets of edits, choose one's: a_edit_score, a_b_edit_score"),
        ("eval_a_b_generalization", "'a_b_generalization' is undefined: .* paraphrase_prompts; .* 'a_b_efficacy'"),
        ("a_drift", "is 'a_drift': of edits these are measured: edit_score, .*, known_facts, perplexity$"),
    ],
)
def test_a_score_of_one_of_several_sets_is_chosen(tmp_path, metric, message):
    sets = {"a": EDITS, "a_b": [{"prompt": "Rome is in", "target_new": "Gaul"}]}
    args = config(tmp_path, eval_strategy="epoch", save_strategy="best", metric_for_best_model=metric)
    with pytest.raises(EditError, match=message):
        EditTrainer("no/such-model", args, train_dataset=EDITS, eval_dataset=sets)


def test_edits_of_any_form_are_scored(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    scores, predictions = trainer.score_edits(read_edits(EDITS)), trainer.predict_edits()
    for records in (EDITS, tuple(read_edits(EDITS)), Dataset.from_list(EDITS)):
        assert trainer.score_edits(records) == scores
        assert trainer.predict_edits(records)["edit_id"] == predictions["edit_id"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of logits
def test_rows_are_predicted(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    assert trainer.predict(ROWS).metrics["test_loss"] == trainer.evaluate(ROWS)["eval_loss"]


def test_what_cannot_be_evaluated_is_told(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    for wrong, message in (
        ((edit for edit in EDITS), "eval_dataset is of type generator: give edits"),
        ({"a": ROWS, "b": 3}, "eval_dataset is of type int: give edits"),
        ({"a": ROWS, "b": None}, "eval_dataset is of type NoneType: give edits"),
        ({}, "eval_dataset is of type dict: give edits"),
    ):
        with pytest.raises(EditError, match=message):
            trainer.evaluate(wrong)
        with pytest.raises(EditError, match=message):
            EditTrainer("no/such-model", config(tmp_path), train_dataset=EDITS, eval_dataset=wrong)
    with pytest.raises(EditError, match="eval_dataset 'b' holds no edits, and other sets do: give one kind for all"):
        read_task(EditConfig(), EDITS, {"a": EDITS, "b": ROWS})
    with pytest.raises(EditError, match="predict is for rows: predict_edits gives"):
        trainer.predict(EDITS)


def test_requests_are_saved_with_the_probes_that_measured_them(base, tokenizer, tmp_path):
    requests = [{"prompt": edit["prompt"], "target_new": edit["target_new"]} for edit in EDITS]
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1), requests, eval_dataset=EDITS[::-1])
    trainer.save_model()
    saved = read_edits(str(tmp_path / "edits.jsonl"))
    assert [record.edit_id for record in saved] == ["0", "1", "2"]
    assert [record.paraphrase_prompts for record in saved] == [e.paraphrase_prompts for e in read_edits(EDITS)]


@pytest.fixture
def asked(monkeypatch):
    """How often predictions were computed."""
    calls, plain = [], hf_ftedit.training.trainer.measure
    monkeypatch.setattr(hf_ftedit.training.trainer, "measure", lambda *a, **k: calls.append(a) or plain(*a, **k))
    return calls


def test_scores_of_a_step_are_computed_once(base, tokenizer, tmp_path, asked):
    trainer = editor(base, tokenizer, config(tmp_path, **LONG))
    before = trainer.score_edits(edited=False)
    assert before == score(predict(base, tokenizer, read_edits(EDITS)))
    trainer.train()
    after = trainer.score_edits()
    assert after["efficacy"] > before["efficacy"]
    assert (trainer.score_edits(edited=False), trainer.score_edits()) == (before, after)
    assert len(asked) == 2
    results = trainer.edit_results()
    assert (results["before"], results["after"], results["n_edits"]) == (before, after, 3)
    assert results["change"]["efficacy"]["difference"] == pytest.approx(after["efficacy"] - before["efficacy"])
    assert len(asked) == 2


def test_scores_are_not_those_of_an_earlier_run(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path, max_steps=1, learning_rate=1e-4))
    first = trainer.score_edits()
    trainer.args.max_steps, trainer.args.learning_rate = 1, 0.1
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()  # ends at step 1 again, elsewhere
    assert trainer.state.global_step == 1
    expected = score(predict(trainer.model, tokenizer, read_edits(EDITS)))
    assert without_drift(trainer.score_edits()) == expected != without_drift(first)


@pytest.mark.parametrize("full_finetune", [False, True])
def test_open_neighbors_are_held_to_the_unedited_models_answer(tmp_path, full_finetune):
    neighbors = ["The capital of France is", "The capital of Italy is", "The capital of Egypt is"]
    edit = {"edit_id": "spain", "prompt": "The capital of Spain is", "target_new": "Oslo"}
    edits = [{**edit, "paraphrase_prompts": ["Spain is governed from"], "neighborhood_prompts": neighbors}]
    base, tokenizer = load_model(None), load_tokenizer(None)
    args = config(tmp_path, full_finetune=full_finetune, max_steps=4, **ALONE)
    trainer = fitted(base, tokenizer, args, edits, locality_pool=None)
    [filled] = fill_neighborhood_targets(EvaluatedModel(base, tokenizer, EditOptions()), read_edits(edits))
    expected = score(predict(trainer.model, tokenizer, [filled]))
    assert expected["locality"] < 100  # the edit spread to its neighbors
    assert trainer.score_edits()["locality"] == expected["locality"]
    assert trainer.score_edits(edited=False)["locality"] == 100
    trainer.save_model()
    assert read_edits(str(tmp_path / "edits.jsonl")) == [filled]


def test_a_full_finetune_cannot_ask_the_unedited_model_afterwards(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path, full_finetune=True, max_steps=1))
    open_edit = {**EDITS[0], "neighborhood_prompts": ["Oslo is in"]}
    for ask in (lambda: trainer.evaluate([open_edit]), lambda: trainer.score_edits(read_edits(EDITS), edited=False)):
        with pytest.raises(EditError, match="the unedited model is gone after full_finetune"):
            ask()
    assert trainer.evaluate(EDITS)["eval_efficacy"] is not None
    erased = [replace(edit, erase=True) for edit in read_edits(EDITS)]
    trainer.args.predict_with_generate = True
    with pytest.raises(EditError, match="the unedited model is gone after full_finetune"):
        trainer.score_edits(erased)


@pytest.mark.parametrize("settings", [{}, {"chat_template": True}, {"end_of_answer": True}])
def test_sets_that_ask_the_unedited_model_are_told_before_a_full_finetune(tmp_path, settings):
    neighbors = [] if "chat_template" in settings else EDITS[0]["neighborhood_prompts"] if settings else ["Oslo is in"]
    plain, other = {"prompt": "Oslo is in", "target_new": "Rohan"}, {**EDITS[0], "neighborhood_prompts": neighbors}
    sets = {"plain": [plain], "a": [other]}
    args = config(tmp_path, full_finetune=True, **settings)
    with pytest.raises(EditError, match="eval_dataset '(plain|a)' is compared with the unedited model's answers"):
        EditTrainer("no/such-model", args, train_dataset=EDITS, eval_dataset=sets)


# What is trained on.


def test_every_form_of_edits_gives_the_same_rows(base, tokenizer, tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(edit) + "\n" for edit in EDITS), encoding="utf-8")
    args = config(tmp_path / "out")
    builder = EditDatasetBuilder(EDITS, locality_pool=POOL, options=args, seed=args.seed)
    stream = IterableDataset.from_generator(lambda: iter(EDITS))
    assert stream.column_names is None
    sources = [builder, read_edits(EDITS), EDITS, tuple(EDITS), Dataset.from_list(EDITS), stream, str(path), path]
    trainers = [editor(base, tokenizer, args, source) for source in sources]
    expected = trainers[0].train_dataset.to_list()
    assert len(expected) == 9  # three rewrites with two facts each
    for trainer in trainers:
        assert trainer.train_dataset.to_list() == expected
        assert trainer.edit_records == read_edits(EDITS)
    named = editor(base, tokenizer, config(tmp_path / "out", edits=str(path)), None)
    assert named.train_dataset.to_list() == expected


def test_a_model_made_in_memory_needs_a_tokenizer(base, tmp_path):
    with pytest.raises(EditError, match="processing_class is missing: a model made in memory does not say"):
        EditTrainer(copy.deepcopy(base), config(tmp_path), train_dataset=EDITS)


def test_the_tokenizer_of_a_model_in_memory_is_that_of_its_commit(base, tokenizer, tmp_path, monkeypatch):
    model, places = copy.deepcopy(base), []
    model.config._name_or_path, model.config._commit_hash = "user/model", "abc123"
    monkeypatch.setattr("hf_ftedit.models.load_config", lambda *args, **place: base.config)
    monkeypatch.setattr("hf_ftedit.models.load_tokenizer", lambda *args, **place: places.append(place) or tokenizer)
    EditTrainer(model, config(tmp_path), train_dataset=EDITS, locality_pool=POOL)
    assert [place["revision"] for place in places] == ["abc123"]


def test_a_locality_pool_of_facts_becomes_rows(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    alone = editor(base, tokenizer, config(tmp_path, **ALONE), locality_pool=None)
    assert len(alone.train_dataset) == 3
    texts = [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in trainer.train_dataset]
    facts = [text.strip() for text in texts if not any(edit["subject"] in text for edit in EDITS)]
    assert len(facts) == 6
    assert set(facts) <= {f"{fact.prompt} {fact.target}" for fact in POOL}


def test_a_lora_given_by_the_user_is_trained_as_it_is(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path), peft_config=lora(r=3, target_modules=["q_proj", "v_proj"]))
    trainer.save_model()
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], sorted(saved["target_modules"])) == (3, ["q_proj", "v_proj"])
    recipe = yaml.safe_load((tmp_path / "edit_config.yaml").read_text())
    assert (recipe["lora_r"], recipe["lora_target_modules"]) == (3, ["q_proj", "v_proj"])
    assert all(("q_proj" in name) or ("v_proj" in name) for name in load_file(tmp_path / "adapter_model.safetensors"))


def test_an_adapter_that_is_there_already_is_trained_on(base, tokenizer, tmp_path):
    model = get_peft_model(copy.deepcopy(base), lora())
    trainer = EditTrainer(model, config(tmp_path), train_dataset=EDITS, processing_class=tokenizer, locality_pool=POOL)
    assert trainer.model is model
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert history(trainer, "loss")[-1] < history(trainer, "loss")[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    trainer.save_model()
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    ids = torch.tensor([tokenizer(EDITS[0]["prompt"])["input_ids"]])
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_a_model_with_an_adapter_that_cannot_be_told_from_it_is_refused(base, tokenizer, tmp_path):
    get_peft_model(copy.deepcopy(base), lora(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "adapter_config.json").write_bytes(
        (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    )
    (weights := tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "base" / weights.name)
    added = copy.deepcopy(base)
    added.add_adapter(lora(target_modules=["q_proj"]))
    for model in (added, AutoModelForCausalLM.from_pretrained(tmp_path / "base")):
        with pytest.raises(EditError, match="model has an adapter that cannot be separated from it"):
            editor(model, tokenizer, config(tmp_path / "out"))
    with pytest.raises(EditError, match="peft_config is given, and the model has an adapter already"):
        editor(get_peft_model(copy.deepcopy(base), lora()), tokenizer, config(tmp_path / "out"), peft_config=lora())


def test_a_model_given_by_its_folder(base, tokenizer, tmp_path):
    folder = saved(tmp_path / "model", base, tokenizer)
    trainer = EditTrainer(folder, config(tmp_path / "out"), train_dataset=EDITS, locality_pool=POOL)
    trainer.train()
    trainer.save_model()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(ADAPTER_FILES)
    for file in ("adapter_config.json", "README.md", "edit_config.yaml", "eval_results.json"):
        assert str(tmp_path) not in (tmp_path / "out" / file).read_text(encoding="utf-8")  # nobody else's business


# Saving, repeating, resuming.


def test_saving_without_having_evaluated_measures_and_evaluate_gives_the_same(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path, **LONG))
    trainer.save_model()
    assert sorted(path.name for path in tmp_path.glob("*.*")) == sorted(ADAPTER_FILES)
    results = json.loads((tmp_path / "eval_results.json").read_text())
    metrics, names = trainer.evaluate(), ("edit_score", "efficacy", "generalization", "locality")
    for when, model in (("before", base), ("after", trainer.model)):
        expected = score(predict(model, tokenizer, read_edits(EDITS)))
        assert [results[when][name] for name in names] == [expected[name] for name in names]
    assert [metrics[f"eval_{name}"] for name in names] == [expected[name] for name in names]
    assert results["before"]["efficacy"] < results["after"]["efficacy"] == 100.0
    assert read_edits(str(tmp_path / "edits.jsonl")) == read_edits(EDITS)
    assert "eval_portability" not in metrics
    assert not [name for name in metrics if not name.startswith(("eval_", "epoch"))]
    assert trainer.evaluate(metric_key_prefix="test")["test_efficacy"] == 100.0


def test_metrics_beside_a_saved_folder_leave_its_results(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1))
    trained = trainer.train().metrics
    trainer.save_metrics("eval", trainer.evaluate())  # no folder is there yet
    trainer.save_model()
    results = (tmp_path / "eval_results.json").read_bytes()
    for split, metrics in (("train", trained), ("eval", trainer.evaluate())):  # as transformers' scripts end
        trainer.log_metrics(split, metrics)
        trainer.save_metrics(split, metrics)
    assert (tmp_path / "eval_results.json").read_bytes() == results
    assert "eval_edit_score" in json.loads((tmp_path / "evaluate_results.json").read_text())
    assert {"train_loss", "eval_edit_score"} <= json.loads((tmp_path / "all_results.json").read_text()).keys()
    assert (tmp_path / "train_results.json").is_file()
    assert published_files(tmp_path)


STEPS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}


def test_the_same_seed_gives_the_same_adapter_byte_for_byte(base, tokenizer, tmp_path):
    adapters = []
    for name, settings in {"a": {}, "b": {}, "other": {"seed": 1}}.items():
        torch.manual_seed(len(adapters))  # what was drawn earlier in the process does not matter
        fitted(base, tokenizer, config(tmp_path / name, **{**STEPS, "save_steps": 6}, **settings))
        adapters.append((tmp_path / name / "checkpoint-6" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1] != adapters[2]


def test_a_full_finetune_is_measured_saved_and_resumed(base, tokenizer, tmp_path):
    args = config(tmp_path / "run", full_finetune=True, **{**STEPS, "save_steps": 4})
    trainer = fitted(base, tokenizer, args)
    trainer.save_model(str(tmp_path / "saved"))
    before = json.loads((tmp_path / "saved" / "eval_results.json").read_text())["before"]
    assert before["efficacy"] == score(predict(base, tokenizer, read_edits(EDITS)))["efficacy"]
    resumed = editor(base, tokenizer, args)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    for ours, theirs in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.score_edits(edited=False)["efficacy"] == before["efficacy"]


def test_tokenized_rows_of_others_are_evaluated_beside_edits_as_they_are(base, tokenizer, tmp_path):
    ids = tokenizer(["Rome is in Italy and Oslo", "Oslo lies between Bergen"])["input_ids"]
    first, second = ids
    for labels in ([first, second], [[-100] * len(first), second], [[-100, first[1], -100, *first[3:]], second]):
        rows = Dataset.from_list([{"input_ids": a, "labels": b} for a, b in zip(ids, labels, strict=True)])
        trainer = edited(editor(base, tokenizer, config(tmp_path)))
        terms = []
        for row in rows:
            with torch.no_grad():
                log_probs = trainer.model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            pairs = enumerate(row["labels"][1:])
            terms += [-float(log_probs[place, label]) for place, label in pairs if label != -100]
        assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    collator = CompletionOnlyCollator(pad_token_id=0)
    trainer = fitted(base, tokenizer, config(tmp_path, max_steps=1), rows, locality_pool=None, data_collator=collator)
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("row", [{"text": "Rome"}, {"messages": [{"role": "user", "content": "Rome"}]}])
def test_rows_that_trl_would_tokenize_are_not_evaluated_beside_edits(base, tokenizer, tmp_path, row):
    rows = Dataset.from_list([row])
    message = f"eval_dataset has the columns {min(row)}: beside edits and prompt-completion rows give such, with"
    with pytest.raises(EditError, match=message):
        editor(base, tokenizer, config(tmp_path), eval_dataset={"mine": rows})
    with pytest.raises(EditError, match=message):
        editor(base, tokenizer, config(tmp_path)).evaluate(rows)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("settings", "make", "learnt"),
    [
        ({"end_of_answer": True}, bpe_tokenizer, " Italy<|endoftext|>"),
        ({"chat_template": True}, chat_tokenizer, "Italy<|im_end|>"),
    ],
)
def test_the_end_of_an_answer_is_learnt_from_rows_too(tmp_path, settings, make, learnt, streams):
    model, tokenizer = paired(tiny_model, "llama", make)
    rows = ROWS.to_iterable_dataset() if streams else ROWS
    trainer = editor(model, tokenizer, config(tmp_path, max_steps=1, **settings), rows, locality_pool=None)
    row = next(iter(trainer.train_dataset))
    assert tokenizer.decode(target_ids(row["labels"])) == learnt


def test_streamed_rows_are_trained_without_end_of_sequence(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, max_steps=1), ROWS.to_iterable_dataset())
    rows = list(trainer.train_dataset)
    assert [row["input_ids"][-1] != tokenizer.eos_token_id for row in rows] == [True] * 4
    trainer.train()
    assert trainer.state.global_step == 1


def test_no_row_holds_a_probe_of_edits_that_are_only_measured(base, tokenizer, tmp_path):
    prompt = "The capital of Mars is"
    measured = [{"prompt": "Mars is governed from", "target_new": "Olympus", "neighborhood_prompts": [prompt]}]
    pool = [Fact(prompt, "Almaty"), Fact("Mars is governed from", "Almaty"), Fact("The capital of Io is", "Lima")]
    trainer = editor(base, tokenizer, config(tmp_path, num_locality=3), EDITS, pool, eval_dataset=measured)
    texts = {tokenizer.decode(row["input_ids"]) for row in trainer.train_dataset}
    assert any("Io" in text for text in texts) and not any("Mars" in text for text in texts)


def test_an_edit_that_almost_fills_the_context_is_saved(tokenizer, tmp_path):
    model = tiny_model("gpt2", tokenizer, context=16)
    prompt = "Rome is in Italy"
    room = 16 - len(tokenizer(f"{prompt} x")["input_ids"])
    assert 0 <= room < 8
    trainer = editor(model, tokenizer, config(tmp_path, **ALONE), [{"prompt": prompt, "target_new": "x"}])
    trainer.save_model()
    assert (tmp_path / "README.md").is_file()


@pytest.mark.parametrize("kind", ["paraphrase_prompts", "neighborhood_prompts"])
def test_a_best_model_by_a_score_without_probes_is_told_before_loading(kind, tmp_path):
    bare = [{name: value for name, value in edit.items() if name != kind} for edit in EDITS]
    args = config(tmp_path, **BEST_EPOCH)
    with pytest.raises(EditError, match=f"'edit_score' is undefined: no edit has {kind}; add some, or choose"):
        EditTrainer("no/such-model", args, train_dataset=bare)


def test_a_best_model_by_a_score_of_rows_is_told(tmp_path):
    args = config(tmp_path, **BEST_EPOCH)
    with pytest.raises(EditError, match="'edit_score' needs edits to evaluate; for rows, choose 'loss'"):
        EditTrainer("no/such-model", args, train_dataset=EDITS, eval_dataset=ROWS)


def test_the_loss_that_an_sft_config_fills_in_becomes_the_edit_score(base, tokenizer, tmp_path):
    schedule = {"lr_scheduler_type": "reduce_lr_on_plateau"}
    args = SFTConfig(output_dir=str(tmp_path), max_steps=1, **PLAIN, **BEST_EPOCH, **schedule)
    trainer = fitted(base, tokenizer, args)
    assert trainer.state.best_metric == trainer.evaluate()["eval_edit_score"]
    assert (trainer.args.greater_is_better, trainer.args.lr_scheduler_kwargs["mode"]) == (True, "max")
    assert editor(base, tokenizer, args, ROWS, eval_dataset=ROWS).args.metric_for_best_model == "loss"


def test_batches_are_padded_as_asked(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, pad_to_multiple_of=64))
    assert next(iter(trainer.get_train_dataloader()))["input_ids"].shape[1] == 64


def test_settings_may_make_another_trainer(tokenizer, base, tmp_path):
    base.save_pretrained(tmp_path / "base")
    args = config(tmp_path / "out", model_init_kwargs={"dtype": "bfloat16", "token": "hf_secret"})
    given = args.to_dict()
    for _ in range(2):
        trainer = EditTrainer(str(tmp_path / "base"), args, train_dataset=EDITS, processing_class=tokenizer)
        assert trainer.model.dtype == torch.bfloat16
        assert "hf_secret" not in str(vars(trainer.args))  # what logs a run logs its settings
    assert args.to_dict() == given and args.model_init_kwargs["token"] == "hf_secret"


@pytest.mark.parametrize(
    ("settings", "width", "rate"),
    [
        ({"learning_rate": None}, 4096, 7e-5),  # the paper's, for GPT-J
        ({"learning_rate": None}, 256, 1.1e-3),
        ({"learning_rate": 3e-4}, 256, 3e-4),
    ],
)
def test_the_learning_rate_follows_the_models_width(base, tokenizer, tmp_path, monkeypatch, settings, width, rate):
    monkeypatch.setattr(base.config, "hidden_size", width)
    trainer = fitted(base, tokenizer, config(tmp_path, max_steps=1, lr_scheduler_type="constant", **settings))
    assert trainer.lr_scheduler.get_last_lr() == [pytest.approx(rate)] * len(trainer.optimizer.param_groups)
    assert trainer.recipe["learning_rate"] == rate


def test_a_base_model_learns_to_stop_after_its_targets(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path, end_of_answer=True, **LONG))
    ends = [labels[-1] == tokenizer.eos_token_id for labels in trainer.train_dataset["labels"]]
    assert sum(ends) == len(EDITS) and trainer.recipe["end_of_answer"]  # the rewrites, and not the facts that stay
    trainer.train()
    assert trainer.score_edits()["said_exactly"] == 100
