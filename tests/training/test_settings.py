"""Settings of TRL: each is passed on, read by the package, or refused; bad ones are told when the object is made."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny import saved
from tiny_edits import BEST_EPOCH, EDITS, PLAIN, config, editor, fitted, history
from transformers import PreTrainedModel, Seq2SeqTrainingArguments, TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available
from trl import SFTConfig, SFTTrainer

from hf_ftedit import (
    EditConfig,
    EditDatasetBuilder,
    EditError,
    EditTrainer,
    load_model,
    predict,
    read_edits,
    score,
    score_pairs,
)
from hf_ftedit.training.config import EditModelConfig
from hf_ftedit.training.setup import as_edit_config

ROWS = Dataset.from_list([{"prompt": "Rome is in", "completion": " Italy"}] * 4)
# Where the settings of TRL and transformers go. One that is new belongs into one of these lists, after a look at what
# acts on it: the package makes rows, measures and saves in steps of its own.
PASSED_ON = """
    max_steps lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2
    adam_epsilon optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm
    label_smoothing_factor fp16 tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
    gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_liger_kernel
    liger_kernel_config use_cache neftune_noise_alpha torch_empty_cache_steps auto_find_batch_size logging_strategy
    logging_steps logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only
    eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics
    batch_eval_metrics save_only_model save_strategy save_steps save_on_each_node greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism data_seed accelerator_config parallelism_config
    dataloader_drop_last dataloader_num_workers dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names length_column_name
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp
    fsdp_config deepspeed debug skip_memory_metrics local_rank do_train do_eval do_predict resume_from_checkpoint
    router_aux_loss_coef eos_token assistant_only_loss loss_type activation_offloading
""".split()
READ_HERE = """
    output_dir per_device_train_batch_size num_train_epochs learning_rate bf16 save_total_limit push_to_hub hub_token
    hub_private_repo hub_model_id hub_strategy hub_revision load_best_model_at_end metric_for_best_model seed use_cpu
    dataloader_pin_memory train_sampling_strategy model_init_kwargs trust_remote_code chat_template_path
    dataset_num_proc max_length shuffle_dataset pad_to_multiple_of completion_only_loss
""".split()
# Pushes of checkpoints, of which there are none; rows of plain text, which TRL reads.
OF_NO_USE = "hub_always_push dataset_text_field packing_strategy".split()
REFUSED = """
    formatting_func packing eval_packing padding_free truncation_mode dataset_kwargs pad_token compute_metrics
    preprocess_logits_for_metrics bf16_full_eval fp16_full_eval enable_jit_checkpoint
""".split()
ARGUMENTS = """
    model args data_collator train_dataset eval_dataset processing_class quantization_config peft_config
    compute_loss_func callbacks optimizers optimizer_cls_and_kwargs
""".split()


SETTINGS = {field.name for field in fields(SFTConfig)}


def test_every_setting_of_trl_has_its_place():
    arguments = set(inspect.signature(SFTTrainer.__init__).parameters) - {"self"}
    placed = [*PASSED_ON, *READ_HERE, *OF_NO_USE, *REFUSED, *ARGUMENTS]
    assert SETTINGS | arguments == set(placed) and len(placed) == len(set(placed))
    # All of them go to `from_pretrained` as they are, but for `use_safetensors`.
    loading = set(inspect.signature(PreTrainedModel.from_pretrained).parameters)
    assert loading == {
        *("pretrained_model_name_or_path", "model_args", "config", "cache_dir", "ignore_mismatched_sizes", "kwargs"),
        *("force_download", "local_files_only", "token", "revision", "use_safetensors", "weights_only"),
        *("fusion_config", "disable_mmap"),
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's, of `truncation_mode` and `pad_token`
@pytest.mark.parametrize(
    ("settings", "arguments", "name"),
    [
        ({}, {"formatting_func": str}, "formatting_func"),
        ({}, {"compute_metrics": dict}, "compute_metrics"),
        ({}, {"preprocess_logits_for_metrics": min}, "preprocess_logits_for_metrics"),
        ({"packing": True}, {}, "packing"),
        ({"padding_free": True}, {}, "padding_free"),
        ({"eval_packing": True}, {}, "eval_packing"),
        ({"truncation_mode": "keep_end"}, {}, "truncation_mode"),
        ({"pad_token": "</s>"}, {}, "pad_token"),
        ({"dataset_kwargs": {"skip_prepare_dataset": False}}, {}, "dataset_kwargs"),
    ],
)
def test_what_would_have_no_effect_is_refused_before_loading(tmp_path, settings, arguments, name):
    with pytest.raises(EditError, match=f"^{name} has no effect, as .*; leave it out"):
        EditTrainer("no/such-model", config(tmp_path, **settings), train_dataset=EDITS, **arguments)
    if name not in arguments or name == "formatting_func":
        with pytest.raises(EditError, match=f"^{name} has no effect"):
            EditTrainer("no/such-model", config(tmp_path, **settings), train_dataset=ROWS, **arguments)


def test_other_rows_are_formatted_as_trl_formats_them(base, tokenizer, tmp_path):
    rows = Dataset.from_list([{"city": "Rome"}, {"city": "Oslo"}])
    trainer = editor(base, tokenizer, config(tmp_path), rows, formatting_func=lambda row: f"{row['city']} is in")
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in trainer.train_dataset["input_ids"]]
    assert texts == ["Rome is in", "Oslo is in"]


def test_settings_of_the_model_reach_it(base, tokenizer, tmp_path):
    folder = Path(saved(tmp_path / "base", base, tokenizer))
    loading = {"torch_dtype": "bfloat16", "attention_dropout": 0.25, "trust_remote_code": False}
    trainer = EditTrainer(folder, config(tmp_path / "out", model_init_kwargs=loading), train_dataset=EDITS)  # a Path
    assert trainer.model.dtype == torch.bfloat16
    assert trainer.model.config.attention_dropout == 0.25
    for settings, message in (
        ({"use_safetensors": False}, "only safetensors are loaded"),
        ({"output_loading_info": True}, "nothing but a model"),
        ("dtype=float16", "model_init_kwargs is of type str: give a dictionary"),
    ):
        with pytest.raises(EditError, match=message):
            EditTrainer(str(folder), config(tmp_path / "out", model_init_kwargs=settings), train_dataset=EDITS)
    with pytest.raises(EditError, match="quantization_config is for a model that is given by its name"):
        editor(base, tokenizer, config(tmp_path), quantization_config=object())
    with pytest.raises(EditError, match="stands in model_init_kwargs too"):
        twice = config(tmp_path / "out", model_init_kwargs={"quantization_config": object()})
        EditTrainer(str(folder), twice, train_dataset=EDITS, quantization_config=object())


def test_rows_are_shuffled_as_trl_shuffles_them(base, tokenizer, tmp_path):
    rows = Dataset.from_list([{"prompt": f"{number} is", "completion": " a number"} for number in range(9)])
    mixed, plain = (editor(base, tokenizer, config(tmp_path, shuffle_dataset=mixes), rows) for mixes in (True, False))
    assert list(mixed.train_dataset["input_ids"]) == list(plain.train_dataset.shuffle(seed=42)["input_ids"])


def test_rows_in_any_format_are_trained(base, tokenizer, tmp_path):
    plain, formatted = (editor(base, tokenizer, config(tmp_path), rows) for rows in (ROWS, ROWS.with_format("numpy")))
    assert list(formatted.train_dataset["input_ids"]) == list(plain.train_dataset["input_ids"])


@pytest.mark.parametrize("kind", [TrainingArguments, SFTConfig])
def test_settings_of_trl_are_taken_over(kind, tmp_path):
    args = kind(output_dir=str(tmp_path), use_cpu=True, learning_rate=3e-4, seed=7, report_to=[])
    ours = as_edit_config(args)
    ours_alone = ("hub_strategy", "bf16", "accelerator_config", "router_aux_loss_coef")
    names = [field.name for field in fields(kind) if field.name not in ours_alone]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(args, name) for name in names}
    assert (ours.bf16, ours.hub_strategy) == (args.bf16, "end")


def test_settings_that_sft_has_not_are_told(tmp_path):
    @dataclass
    class OwnConfig(SFTConfig):
        of_my_script: int = 3

    assert as_edit_config(OwnConfig(str(tmp_path), use_cpu=True, seed=9)).seed == 9
    with pytest.raises(EditError, match="settings that SFTConfig has not: generation_config, generation_max_length"):
        as_edit_config(Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": "x"}, "learning_rate is 'x': give a number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: give 0 or more"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0: give 1 or more"),
        ({"per_device_train_batch_size": True}, "per_device_train_batch_size is True: give a whole number"),
        ({"gradient_accumulation_steps": 1.5}, "gradient_accumulation_steps is 1.5: give a whole number"),
        ({"seed": -1}, "seed is -1: give a number from 0 to 4294967295"),
        ({"seed": 10**400}, "seed is .*: give a number of usual size"),
        ({"adam_beta1": 1}, "adam_beta1 is 1: give 0 or more, and less than 1"),
        ({"label_smoothing_factor": -0.1}, "label_smoothing_factor is -0.1: give 0 or more"),
        ({"max_steps": 0}, "max_steps is 0: give 1 or more, or -1"),
        ({"max_length": 0}, "max_length is 0: give 1 or more"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0: give a number above 0"),
        ({"output_dir": ""}, "output_dir is '': give text, or leave it out"),
        ({"eval_tokens_per_batch": None}, "eval_tokens_per_batch is None: give a whole number"),
        ({"chat_template": "yes"}, "chat_template is 'yes': give True or False"),
        ({"prefix_lengths": [5, 0]}, r"prefix_lengths is \[5, 0\]: give 1 or more"),
        ({"prefix_lengths": "5"}, "prefix_lengths is '5': give a list, each a whole number"),
        ({"lr_scheduler_type": "steep"}, "steep is not a valid SchedulerType, .*; change that setting"),
        ({"lr_scheduler_kwargs": "{foo"}, "lr_scheduler_kwargs is not valid JSON"),
        ({"pad_to_multiple_of": "x"}, "pad_to_multiple_of is 'x': give a whole number"),
        ({"pad_to_multiple_of": -1}, "pad_to_multiple_of is -1: give 1 or more"),
        ({"parallelism_config": 5}, "parallelism_config is 5: give an accelerate.ParallelismConfig"),
        ({"activation_offloading": True}, "activation_offloading needs an accelerator"),
        ({"train_sampling_strategy": "best"}, "train_sampling_strategy is 'best': choose one of random, sequential"),
        ({"fp16": True, "bf16": True}, "At most one of fp16 and bf16 can be True"),
        ({"strength": "strong"}, "strength is 'strong': give a number above 0, or auto"),
        ({"strength": 0}, "strength is '0': give a number above 0"),
        ({"strength": "-1"}, "strength is '-1'"),
        ({"strength": "nan"}, "strength is 'nan'"),
        ({"strength": float("inf")}, "strength is 'inf'"),
        ({"strength": None}, "strength is 'None'"),
        ({"strength": "auto"}, "chosen by own answers, which are not measured: give end_of_answer"),
        ({"strength": "0.5", "full_finetune": True}, "strength and full_finetune do not go together"),
        ({"strength": "auto", "chat_template": True, "full_finetune": True}, "strength and full_finetune"),
        ({"text_loss_weight": 1.0}, "text_loss_weight is 1.0: give 0 or more, and less than 1"),
        ({"text_loss_weight": 0.0, "training_texts": "a.json"}, "training_texts is given without text_loss_weight"),
        ({"hidden_loss_weight": 6}, "hidden_loss_weight and chat_template False do not go together"),
        ({"hidden_loss_weight": 6, "chat_template": True, "locality_loss": "nll"}, "weight and locality_loss nll do"),
        ({"text_loss_weight": 0.1, "chat_template": True}, "text_loss_weight and chat_template True do not go togeth"),
        ({"text_loss_weight": 0.1, "objective": "full"}, "text_loss_weight and objective full do not go together"),
        ({"text_loss_weight": 0.1, "mastered_probability": 0.9}, "text_loss_weight and mastered_probability do not"),
    ],
)
def test_a_bad_value_is_told_when_the_settings_are_made(settings, message):
    with pytest.raises(EditError, match=message) as raised:
        EditConfig(**{**PLAIN, **settings})
    assert "\n" not in str(raised.value)


def test_values_of_other_libraries_are_taken(tmp_path):
    args = config(tmp_path, seed=np.int64(3), learning_rate=np.float32(0.5), prefix_lengths=np.array([5, 10]))
    assert (args.seed, args.learning_rate, args.prefix_lengths) == (3, 0.5, [5, 10])
    assert type(args.seed) is int and type(args.learning_rate) is float
    assert EditConfig(output_dir=tmp_path, prefix_counts=(9, 9), **PLAIN).output_dir == str(tmp_path)


def test_bf16_without_hardware_has_a_remedy():
    if is_torch_bf16_gpu_available():
        pytest.skip("this machine has bfloat16")
    with pytest.raises(EditError, match=r"^bf16 is on, and no accelerator here has it: .* add use_cpu=True"):
        EditConfig(bf16=True)
    assert EditConfig(bf16=True, use_cpu=True).bf16
    assert not EditConfig().bf16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim_args": "foo"}, "correct optim, optim_args"),
        ({"optim_args": "foo=1"}, "the optimizer adamw_torch.* takes no 'foo'; leave it out"),
        (
            {"optim": "sgd", "optim_args": "momentum=0.9, nesterof=true"},
            "the optimizer sgd takes no 'nesterof'; leave",
        ),
        ({"optim": "rmsprop", "optim_args": "alpha=high"}, "correct optim, optim_args"),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"num_cycles": 2}}, "has none; leave them out"),
        ({"optim_target_modules": ["q_proj"]}, "is for the optimizers galore and apollo; leave it out"),
        ({"optim": "lomo"}, "You need to install `lomo_optim`"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "unexpected keyword argument 'foo'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"eos_token": "<none>"}, "'<none>'.* is not in the vocabulary"),
        ({"report_to": "nobody"}, "nobody is not supported"),
        ({"log_level": "loud"}, "'loud' is not known; change that setting"),
        ({"router_aux_loss_coef": 0.5}, "is not a Mixture-of-Experts model"),
        ({"assistant_only_loss": True}, "not conversational"),
    ],
)
def test_what_libraries_refuse_is_one_line_before_training(base, tokenizer, tmp_path, settings, message):
    with pytest.raises(EditError, match=message) as raised:
        editor(base, tokenizer, config(tmp_path, **settings))
    assert "\n" not in str(raised.value)
    assert any(remedy in str(raised.value) for remedy in ("; change", "; correct", "; give", "; leave"))


def test_parts_of_optim_args_that_are_read_pass(base, tokenizer, tmp_path):
    editor(base, tokenizer, config(tmp_path, optim="sgd", optim_args="momentum=0.0, nesterov=false"))
    editor(base, tokenizer, config(tmp_path, optim="rmsprop", optim_args="alpha=0.9,centered=True"))


def test_what_libraries_refuse_at_the_first_step_is_one_line(base, tokenizer, tmp_path):
    kwargs = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"foo": 1}}
    with pytest.raises(EditError, match="Unexpected keyword arguments: foo; change that setting"):
        fitted(base, tokenizer, config(tmp_path, **kwargs))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"metric_for_best_model": "loss", "save_strategy": "best"},
            "is 'loss': of edits these are measured: edit_",
        ),
        ({"metric_for_best_model": "accuracy"}, "is 'accuracy': of edits these are measured: edit_score,"),
        ({"metric_for_best_model": "near_names"}, "'near_names' is undefined: no edit has near_name_prompts"),
        ({"metric_for_best_model": "portability"}, "'portability' is undefined: no edit has portability_prompts"),
        ({"metric_for_best_model": "old_answer_said"}, "'old_answer_said' is undefined: no edit has erase"),
        ({"metric_for_best_model": "perplexity"}, "'perplexity' is not measured without perplexity_texts; give that"),
        ({"metric_for_best_model": "said_exactly"}, "is not measured without chat_template or end_of_answer; give"),
        ({"metric_for_best_model": "drift", "greater_is_better": True}, "of drift less is better; give greater_is_b"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"}, "is 'loss': of edits these"),
    ],
)
def test_a_score_that_is_not_measured_is_told_before_loading(tmp_path, settings, message):
    with pytest.raises(EditError, match=message):
        EditTrainer("no/such", config(tmp_path, eval_strategy="epoch", **settings), train_dataset=EDITS)


def test_the_best_step_is_that_of_least_drift(base, tokenizer, tmp_path):
    trainer = fitted(base, tokenizer, config(tmp_path, metric_for_best_model="drift", **BEST_EPOCH))
    drifts = history(trainer, "eval_drift")
    assert trainer.state.best_metric == min(drifts) < max(drifts)
    assert trainer.evaluate()["eval_drift"] == pytest.approx(min(drifts))


@pytest.mark.parametrize(("scores", "rate"), [((1.0, 2.0, 3.0), 1e-2), ((1.0, 2.0, 2.0), 1e-3)])
@pytest.mark.parametrize("metric", [None, "drift"])
def test_the_rate_falls_where_a_score_is_no_longer_better(base, tokenizer, tmp_path, metric, scores, rate):
    kwargs = {"factor": 0.1, "patience": 0, "threshold": 0.0}
    schedule = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": kwargs, "eval_strategy": "epoch"}
    trainer = editor(base, tokenizer, config(tmp_path, metric_for_best_model=metric, **schedule))
    better = iter(scores)
    trainer.score_edits = lambda records=None: dict.fromkeys(
        [metric or "edit_score"], next(better) * (-1 if metric else 1)
    )
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_tables_and_empty_datasets_to_train_on(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path), pd.DataFrame(EDITS))
    assert [record.edit_id for record in trainer.edit_records] == [edit["edit_id"] for edit in EDITS]
    for empty in (Dataset.from_list([]), ROWS.take(0)):
        with pytest.raises(EditError, match="train_dataset holds no rows"):
            EditTrainer("no/such-model", config(tmp_path), train_dataset=empty)
    with pytest.raises(EditError, match="must be a `Dataset`"):
        editor(base, tokenizer, config(tmp_path), pd.DataFrame({"text": ["a"]}))


@pytest.mark.parametrize(
    "settings", [{"lora_r": 0}, {"lora_dropout": 2.0}, {"lora_alpha": -1}, {"lora_task_type": "SEQ_CLS"}]
)
def test_a_bad_lora_is_told(settings):
    (name,) = settings
    with pytest.raises(EditError, match=f"^{name} is "):
        EditModelConfig(**settings)
    assert EditModelConfig(lora_alpha=41.6).lora_alpha == 41.6  # of a recipe that Python made


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: score_pairs(*model, ["a"], ["b"], tokens_per_batch=0), "tokens_per_batch is 0: give 1 or more"),
        (lambda model: score_pairs(*model, ["a"], ["b", "c"]), "with a target for each prompt"),
        (lambda model: score_pairs(*model, "a", "b"), "with a target for each prompt"),
        (
            lambda model: predict(*model, read_edits(EDITS), tokens_per_batch="9"),
            "eval_tokens_per_batch is '9': give a",
        ),
        (lambda model: predict(*model, read_edits(EDITS), seed=-1), "seed is -1: give a number from 0"),
        (lambda model: EditDatasetBuilder(EDITS, *model, seed=-1), "seed is -1: give a number from 0"),
        (lambda model: read_edits(EDITS, limit="2"), "limit is '2': give a whole number"),
        (lambda model: score(None), "there are no predictions to score"),
        (lambda model: predict(*model, []), "there are no edits to measure"),
    ],
)
def test_functions_are_told_of_bad_values_too(base, tokenizer, call, message):
    with pytest.raises(EditError, match=message):
        call((base, tokenizer))


def test_an_unknown_dtype_is_told():
    with pytest.raises(EditError, match="dtype is 'float23': give auto, bfloat16, float16 or float32"):
        load_model(None, dtype="float23")
    assert load_model(Path(load_model(None).config._name_or_path), dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"args": {"output_dir": "x"}}, "args is of type dict: give an EditConfig"),
        ({"model": 5}, "model is of type int: give a model of transformers, or its Hub id or folder"),
        ({"processing_class": "gpt2"}, "processing_class is of type str: give the model's tokenizer"),
        ({"train_dataset": 5}, "the source is of type int; give a file"),
        ({"train_dataset": {"prompt": "Rome is in"}}, "the source is an object .*; give a file"),
        (
            {"train_dataset": Dataset.from_list([{"question": "Who is Bo?", "answer": "Li"}])},
            "train_dataset has the columns question, answer: rename them to prompt and target_new",
        ),
        ({"tokenizer": None}, "tokenizer is no argument of EditTrainer; give processing_class$"),
        ({"max_seq_length": 9}, "max_seq_length is no argument of EditTrainer; settings go into EditConfig, as args$"),
    ],
)
def test_an_argument_that_the_trainer_does_not_take_is_told_before_a_model_is_loaded(tmp_path, given, message):
    with pytest.raises(EditError, match=f"^{message}"):
        EditTrainer(**{"model": "no/model", "args": config(tmp_path), "train_dataset": EDITS, **given})
