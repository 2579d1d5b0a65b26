"""Model, tokenizer and tokenized rows of an edit task, for `SFTTrainer`."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, replace
from inspect import signature
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from trl import SFTConfig, SFTTrainer

from hf_ftedit import models
from hf_ftedit.augmentation import EditDatasetBuilder, encode_rows, is_prompt_completion, with_erasures
from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, shown
from hf_ftedit.evaluation import SCORES, check_known, check_lengths, load_checked, unmeasured
from hf_ftedit.hub import base_of, check_base
from hf_ftedit.training.config import BY_METRIC, LESS_IS_BETTER, EditConfig
from hf_ftedit.training.measurements import asks_unedited
from hf_ftedit.training.plain_text import with_plain_text
from hf_ftedit.training.task import Continuation, EditTask, check_tokenized

logger = logging.getLogger(__name__)

# Settings of TRL, and arguments of its trainer, that act where it prepares rows, and where it evaluates a loss.
_PREPARING = "formatting_func packing eval_packing padding_free truncation_mode dataset_kwargs pad_token".split()
_EVALUATING = "compute_metrics preprocess_logits_for_metrics bf16_full_eval fp16_full_eval".split()


class Rows(NamedTuple):
    """Training rows for [`~trl.SFTTrainer`], and rows whose loss is evaluated; TRL prepares those not tokenized."""

    train: Any
    evaluation: Any
    are_tokenized: bool
    settings: dict[str, Any]  # of the user's builder, where one made the rows
    prompts: dict[str, list[str]]  # of each edit's rows, by `edit_id`, where `strength` is to be chosen


def as_edit_config(args: TrainingArguments | None) -> EditConfig:
    """`args` as an [`EditConfig`]: settings of TRL or transformers are taken over, the edit's own are defaults."""
    if isinstance(args, EditConfig):
        return args
    if args is None:
        return EditConfig()
    _check_type("args", args, isinstance(args, TrainingArguments), "an EditConfig, SFTConfig or TrainingArguments")
    names = {field.name for field in fields(EditConfig)}
    settings = {field.name: getattr(args, field.name) for field in fields(args) if field.init}
    if (unknown := sorted(settings.keys() - names)) and not isinstance(args, SFTConfig):
        # Those of a user's own subclass of `SFTConfig` are for the user's own script.
        raise EditError(
            f"args has settings that SFTConfig has not: {', '.join(unknown)}; give an EditConfig or SFTConfig"
        )
    rate = next(field.default for field in fields(args) if field.name == "learning_rate")
    if args.learning_rate == rate:
        logger.warning(
            "learning_rate %g, the default of %s, teaches few edits; EditConfig chooses one for the model",
            rate,
            type(args).__name__,
        )
    settings = {name: value for name, value in settings.items() if name in names}
    if settings["hub_strategy"] == TrainingArguments.hub_strategy:
        settings["hub_strategy"] = "end"  # which may be the default rather than a wish
    return EditConfig(**settings)


def _check_type(name: str, value: Any, is_right: bool, expected: str) -> None:
    if not is_right:
        raise EditError(f"{name} is of type {type(value).__name__}: give {expected}")


def check_task(args: EditConfig, task: EditTask, arguments: Mapping[str, Any]) -> None:
    """Raise for settings and `arguments` of the trainer that do not go with what is trained and measured."""
    # Here, as TRL is called only once the rows are made.
    if unknown := arguments.keys() - signature(SFTTrainer.__init__).parameters.keys():
        remedy = "give processing_class" if "tokenizer" in unknown else "settings go into EditConfig, as args"
        raise EditError(f"{min(unknown)} is no argument of EditTrainer; {remedy}")
    _check_best_metric(args, task)
    _check_passed_on(args, task, arguments)
    _check_columns(args, task.rows, arguments)
    for name, part in task.sets.items():
        if args.full_finetune and asks_unedited(part, args):
            raise EditError(
                f"eval_dataset {shown(name)} is compared with the unedited model's answers, and that is gone after "
                "full_finetune: give these edits alone as eval_dataset, or leave full_finetune out"
            )


def _check_passed_on(args: EditConfig, task: EditTask, arguments: Mapping[str, Any]) -> None:
    """Raise for settings and `arguments` of the trainer that act in a step of TRL's which does not come."""
    idle: dict[str, str] = {}
    if task.rows is None or hasattr(task.rows, "records") or is_prompt_completion(task.rows):
        idle |= dict.fromkeys(_PREPARING, "rows of edits, or of prompts and completions, are tokenized otherwise")
    if task.measured and task.eval_rows is None:
        idle |= dict.fromkeys(_EVALUATING, "edits are measured by their probes, in the model's own precision")
    for name, reason in idle.items():
        if {**vars(args), **arguments}.get(name) not in (None, False, "keep_start", {"skip_prepare_dataset": True}):
            raise EditError(f"{name} has no effect, as {reason}; leave it out")


def _check_columns(args: EditConfig, rows: Any, arguments: Mapping[str, Any]) -> None:
    """Raise for rows of which TRL would find no text, where it is to make tokens of them."""
    names = getattr(rows, "column_names", None)
    is_made = arguments.get("formatting_func") or "skip_prepare_dataset" in (args.dataset_kwargs or {})
    kinds = [{"prompt", "completion"}, {"messages"}, {"input_ids"}, {args.dataset_text_field}]
    if names and not is_made and not any(kind <= {*names} for kind in kinds):
        raise EditError(
            f"train_dataset has the columns {', '.join(names)}: rename them to prompt and target_new (edits), or give "
            "rows of prompt and completion, messages, text or input_ids"
        )


def follow_edit_score(args: EditConfig, task: EditTask) -> None:
    """Let the edit score of edits take the place of the loss by which an [`~trl.SFTConfig`] chooses a step."""
    has_edits = task.eval_rows is None and (task.measured or task.sets)
    if has_edits and args.metric_for_best_model in ("loss", "eval_loss"):
        args.metric_for_best_model, args.greater_is_better = "edit_score", True
        if args.lr_scheduler_type in BY_METRIC:
            args.lr_scheduler_kwargs = {**args.lr_scheduler_kwargs, "mode": "max"}  # type: ignore[dict-item]


def _check_best_metric(args: EditConfig, task: EditTask) -> None:
    """Raise where checkpoints or the learning rate are to follow a score that cannot be measured."""
    # Wherever there is an evaluation `Trainer` looks for it, and fails after an epoch where it is not there.
    is_read = args.load_best_model_at_end or args.save_strategy == "best" or args.eval_strategy != "no"
    if not args.metric_for_best_model or not is_read:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    if task.eval_rows is not None or not (task.measured or task.sets):
        if name in ("edit_score", "efficacy", "generalization", "locality"):
            raise EditError(f"metric_for_best_model {name!r} needs edits to evaluate; for rows, choose 'loss'")
        return
    start, records = _set_of(name, task)
    metric = name.removeprefix(start)
    names = [score for score in SCORES if score != "drift" or not start]  # of other sets, it is not measured
    if metric not in names:
        raise EditError(f"metric_for_best_model is {name!r}: of edits these are measured: {', '.join(names)}")
    if args.greater_is_better and metric in LESS_IS_BETTER:
        raise EditError(f"greater_is_better is True, and of {metric} less is better; give greater_is_better=False")
    if problem := unmeasured(metric, records, args):
        raise EditError(f"metric_for_best_model {name!r} {problem}, or choose '{start}efficacy'")


def _set_of(name: str, task: EditTask) -> tuple[str, list[EditRecord]]:
    """How the names of scores of the set begin that has the score `name`, and the set."""
    starts = {f"{each}_": part for each, part in task.sets.items()} or {"": task.measured}
    if fitting := [start for start in starts if name.startswith(start)]:
        return max(fitting, key=len), starts[max(fitting, key=len)]
    names = ", ".join(f"{start}edit_score" for start in starts)
    raise EditError(f"metric_for_best_model is {name!r}: of several sets of edits, choose one's: {names}")


def load_for(
    task: EditTask, model: Any, tokenizer: PreTrainedTokenizerBase | None, args: EditConfig, quantization_config: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, EditTask]:
    """
    The model to train, with the adapter to go on from, its tokenizer, and the task with the old answers to be erased.

    The edits fit into its context, or no weights are read.
    """
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    is_model = model is None or isinstance(model, str) or hasattr(model, "config")
    _check_type("model", model, is_model, "a model of transformers, or its Hub id or folder")
    is_tokenizer = tokenizer is None or hasattr(tokenizer, "convert_ids_to_tokens")
    _check_type("processing_class", tokenizer, is_tokenizer, "the model's tokenizer")
    tokenizer = deepcopy(tokenizer)  # it gets an end of sequence and a dated template, and the user's is to stay
    loading = _loading(args, quantization_config)
    prior = task.continuation
    if hasattr(model, "peft_config") and not hasattr(model, "get_base_model"):
        raise EditError(
            "model has an adapter that cannot be separated from it (of an earlier trainer, by add_adapter, or as "
            "from_pretrained of an adapter's folder); give the base model, loaded again, with adapter=... to go on "
            "from one, or what peft.PeftModel.from_pretrained makes"
        )
    if prior:
        model = _base_of(prior, model, loading)
    elif model is None:
        raise EditError("model is missing; give the model to edit, or its Hub id or folder")
    records = [*task.edits, *task.held_out, *task.revoked]
    if isinstance(model, str):
        # Used here: TRL would warn that it ignores them, as it gets a model.
        args.model_init_kwargs = None
        model, tokenizer = load_checked(model, records, args, tokenizer, **loading)
    else:
        if quantization_config is not None:
            raise EditError("quantization_config is for a model that is given by its name; give that, or leave it out")
        if tokenizer is None and not model.config._name_or_path:
            raise EditError("processing_class is missing: a model made in memory does not say what its tokenizer is")
        tokenizer = tokenizer or models.load_tokenizer(model.config._name_or_path, **_named_place(model, args))
        _check_vocabulary(model, tokenizer, args)
        models.prepare_tokenizer(tokenizer, args)
        check_known(records, tokenizer, model.config, args)
        check_lengths(records, tokenizer, models.context_length(model.config), chat_template=args.chat_template)
    texts = {"training_texts": task.training_texts, "perplexity_texts": task.texts}
    named = ((f"{name}, text {number}", text) for name, parts in texts.items() for number, text in enumerate(parts, 1))
    models.check_tokens(tokenizer, model.config, named)
    if prior:
        check_base(model, prior.saved.settings, prior.name)
        adapted: Any = models.load_adapter(model, prior.saved.path, is_trainable=True)
        # After a revocation the weights hold the revoked edits: a new adapter is trained from the base model. They are
        # loaded all the same, as edits whose weights are not theirs are no edits to train again.
        model = adapted.unload() if prior.is_anew else adapted
    models.keep_gradients(model)
    if task.edits and not args.chat_template and models.plain_template(tokenizer):
        logger.warning("the chat template is not used: set chat_template where the model answers in a chat")
    return model, tokenizer, _with_open_erasures(task, model, tokenizer, chat_template=args.chat_template)


def _named_place(model: Any, args: EditConfig) -> dict[str, Any]:
    """Where the configuration and the tokenizer that `model` was loaded with are, beside its name."""
    place = {"gguf_file": getattr(model, "gguf_file", None), "revision": getattr(model.config, "_commit_hash", None)}
    return {**place, "trust_remote_code": args.trust_remote_code}


def _check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, args: EditConfig) -> None:
    """Raise where tokens were added to `model` in memory: an adapter has no embeddings of them."""
    # Of other changes the recipe tells, by the hash of the weights.
    own = named = model.config.get_text_config().vocab_size
    with suppress(EditError):  # the name of a model made in memory leads nowhere
        named = models.load_config(model.config._name_or_path or "unknown", **_named_place(model, args))
        named = named.get_text_config().vocab_size
    if min(own, len(tokenizer)) > named and not args.full_finetune:
        raise EditError(
            f"model has {own} tokens, and {shown(model.config._name_or_path)} has {named}: what was added would not "
            "be saved; save model and tokenizer with save_pretrained, and give that folder"
        )


def brings_template(model: Any, tokenizer: Any, args: EditConfig) -> bool:
    """Tell a chat template that the `tokenizer` given in Python has, and that of the model's name has not."""
    if args.chat_template and tokenizer is not None and not args.chat_template_path:
        with suppress(EditError):
            own = models.load_tokenizer(model.config._name_or_path or "unknown", **_named_place(model, args))
            return models.plain_template(own) != models.plain_template(tokenizer)
    return False


def _loading(args: EditConfig, quantization_config: Any) -> dict[str, Any]:
    """What a model that is given by its name is loaded with."""
    own: Any = args.model_init_kwargs or {}
    if not isinstance(own, dict):
        raise EditError(f"model_init_kwargs is of type {type(own).__name__}: give a dictionary, or one in JSON")
    settings = {"trust_remote_code": args.trust_remote_code, "quantization_config": quantization_config, **own}
    if "torch_dtype" in settings:  # its name in older scripts
        settings["dtype"] = settings.pop("torch_dtype")
    if not settings.pop("use_safetensors", True) or settings.pop("output_loading_info", False):
        raise EditError(
            "model_init_kwargs: only safetensors are loaded, and nothing but a model; leave use_safetensors "
            "and output_loading_info out"
        )
    if quantization_config is not None and "quantization_config" in own:
        raise EditError("quantization_config is given, and stands in model_init_kwargs too; leave one of them out")
    return settings


def _base_of(prior: Continuation, model: Any, loading: dict[str, Any]) -> Any:
    """The base model of the adapter to go on from, at its recorded commit where it is the recorded one."""
    if hasattr(model, "peft_config"):
        raise EditError("adapter is given, and the model has an adapter already; give the base model")
    models.check_adapter(prior.saved.path, prior.name)
    # Another base model that was named is taken as it is now; its weights are compared once they are read.
    name = model if isinstance(model, str) else None
    base, place = base_of(prior.saved.path, prior.saved, name, loading.get("gguf_file"))
    loading |= {key: value for key, value in place.items() if value}
    return base if model is None else model


def _with_open_erasures(task: EditTask, model: Any, tokenizer: Any, *, chat_template: bool) -> EditTask:
    """The task with the answers that the unedited `model` gives of facts to erase; see [`with_erasures`]."""

    def made(edits: list[EditRecord]) -> list[EditRecord]:
        return with_erasures(edits, model, tokenizer, chat_template=chat_template)

    edits = made(task.edits)
    measured = edits if task.measured is task.edits else made(task.measured)
    return replace(task, edits=edits, measured=measured, sets={name: made(part) for name, part in task.sets.items()})


def make_rows(task: EditTask, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: EditConfig) -> Rows:
    """The task's edits augmented and tokenized; rows of the user are tokenized where they are prompt-completion."""
    source = task.rows if task.rows is not None else _builder(task, model, tokenizer, args)
    rows, settings = source, dict[str, Any]()
    if isinstance(source, EditDatasetBuilder):
        if source.settings.get("chat_template") and not args.chat_template:
            raise EditError("train_dataset has rows for a chat model, and chat_template is not set; set it")
        # The processes of `accelerate launch` read the edits each by itself, maybe from disks of several machines.
        source.check_same()
        rows = models.in_turns(lambda: source.prepared("train", args.dataset_num_proc))
        settings = source.settings if source is task.rows else {}
    eval_rows, are_tokenized = task.eval_rows, is_prompt_completion(rows)
    prompts: dict[str, list[str]] = {}
    if args.strength == "auto":
        for edit_id, prompt in zip(rows["edit_id"], rows["prompt"], strict=True):
            prompts.setdefault(edit_id, []).append(prompt)
    written = rows
    if are_tokenized:
        rows, eval_rows = (tokenized(part, tokenizer, model, args) for part in (rows, eval_rows))
        check_tokenized(eval_rows)
        if isinstance(rows, Dataset) and "kind" in rows.column_names and args.objective == "conditional":
            if args.locality_loss == "kl":
                rows = models.with_references(rows, model, tokens_per_batch=args.eval_tokens_per_batch)
            rows = weighted(rows, args.locality_weight)
        if args.shuffle_dataset:
            rows = rows.shuffle(seed=args.seed)
    if args.text_loss_weight:
        rows = with_plain_text(rows if are_tokenized else None, written, task, model, tokenizer, args)
    if (task.measured or task.sets) and eval_rows is None:
        # `Trainer` wants rows for `eval_strategy`, though `evaluate` measures the records instead.
        eval_rows = rows.take(1)
    return Rows(rows, eval_rows, are_tokenized, settings, prompts)


def tokenized(rows: Any, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, args: EditConfig) -> Any:
    """Prompt-completion rows, or named sets of them, as tokens; other rows as they are. None is cut."""
    if isinstance(rows, dict):
        return {name: tokenized(part, tokenizer, model, args) for name, part in rows.items()}
    if not is_prompt_completion(rows):
        return rows
    if isinstance(rows, Dataset):

        def named(place: int, row: dict[str, Any]) -> tuple[str, str]:
            name = f"edit {row['edit_id']!r}, a row" if "edit_id" in row else f"row {place}"
            return name, "".join(
                [*(turn["content"] for turn in row.get("history") or ()), row["prompt"], row["completion"]]
            )

        models.check_tokens(tokenizer, model.config, starmap(named, enumerate(rows, 1)))
    longest = min(filter(None, (args.max_length, models.context_length(model.config))), default=None)
    settings: dict[str, Any] = {"chat_template": args.chat_template, "objective": args.objective}
    settings |= {"ends": args.has_whole_answers, "max_length": longest, "num_proc": args.dataset_num_proc}
    return models.in_turns(lambda: encode_rows(rows.with_format(None), tokenizer, **settings))


def weighted(rows: Dataset, locality_weight: float) -> Dataset:
    """Add the column `weight`, which makes the mean loss of all tokens a sum of means: 3 x edits, and what stays."""
    # The mean over all tokens would be that of the long answers that stay: edits would not be learned. Weighting rows
    # by the counts of all rows, and not of each batch, is equal in expectation over batches; and no process has to
    # hear how many tokens of each kind are in the parts of a step.
    columns: list[tuple[str, int]] = []
    for batch in rows.select_columns(["kind", "labels"]).iter(1000):  # row by row takes ten times as long
        lengths = (len(labels) - labels.count(models.IGNORE_INDEX) for labels in batch["labels"])
        columns += zip(batch["kind"], lengths, strict=True)
    kinds, counts = map(np.array, zip(*columns, strict=True))
    stays, contrast = kinds == "locality", kinds == "contrast"
    edits = ~(stays | contrast)
    # Edits weigh more than what stays of each kind, where whole answers count by every token, or some are never said.
    weights = np.where(edits, 3 / max(1, counts[edits].sum()), locality_weight / max(1, counts[stays].sum()))
    # An answer about a near name differs from the edit's in its first tokens, however long it is: it counts by row.
    weights[contrast] = locality_weight / max(1, contrast.sum())
    return rows.add_column("weight", counts.sum() * weights)


def _builder(
    task: EditTask, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: EditConfig
) -> EditDatasetBuilder:
    # Prefixes and own answers are the unedited model's, also where training goes on from an adapter.
    with models.unedited(model):
        return EditDatasetBuilder(
            task.edits,
            model,
            tokenizer,
            locality_pool=task.facts,
            options=args,
            held_out=task.held_out,
            revoked=task.revoked,
            chat_template=args.chat_template,
            seed=args.seed,
        )
