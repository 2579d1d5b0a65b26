"""The recipe of an adapter: the settings that reproduce it, without paths, tokens or anything of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from hf_ftedit import __version__
from hf_ftedit.data import is_hub_dataset
from hf_ftedit.models import public_name, weights_fingerprint
from hf_ftedit.options import PROVENANCE, SOURCES, TEMPLATE_FILE, EditOptions

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from hf_ftedit.training.config import EditConfig

# The training arguments that decide the weights. An allow-list: arguments also hold tokens and paths.
TRAINING_KEYS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "optim", "optim_args"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "max_length", "train_sampling_strategy"),
    *("dataloader_drop_last", "average_tokens_across_devices", "bf16", "fp16", "seed", "data_seed"),
    *("optim_target_modules", "loss_type", "label_smoothing_factor", "neftune_noise_alpha", "router_aux_loss_coef"),
    "shuffle_dataset",
)
# Those that decide which step's weights are kept, or the learning rate, by a score.
CHOOSING_KEYS = (
    *("metric_for_best_model", "greater_is_better", "load_best_model_at_end", "eval_strategy", "eval_steps"),
    *("eval_delay", "save_strategy", "save_steps"),
)
# Those that leave the weights as they are.
MEASURING: set[str] = {
    *("protocol", "eval_tokens_per_batch", "predict_with_generate", "measure_fluency", "perplexity_texts"),
    *("known_facts", "skip_invalid"),
}
LIBRARIES = ("transformers", "trl", "peft", "torch")
LORA_KEYS = {
    "lora_r": "r",
    **{name: name for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")},
    **{f"lora_{name}": name for name in ("modules_to_save", "target_parameters")},
}
LORA_SETTINGS: set[str] = {*LORA_KEYS, "lora_target_modules"}
# Settings of PEFT that no option has.
PEFT_KEYS = ("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "exclude_modules")
QUANTIZATION_KEYS = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")

# What decides the weights, and stands in a recipe as it was given.
WEIGHING: set[str] = {
    *(option.name for option in fields(EditOptions)),
    *(*TRAINING_KEYS, "model_name_or_path", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
    *("use_rslora", "use_dora", "load_in_4bit", "load_in_8bit"),
} - {
    *(*SOURCES, *MEASURING, "edits", "erase", "format", "max_edits", "adapter", "chat_template_path"),
    *("train_sampling_strategy", "optim_args", "lr_scheduler_kwargs"),  # the trainer may set them anew
}


def recipe_of(
    args: EditConfig,
    model: PreTrainedModel | PeftModel,
    *,
    lora_targets: Any = None,
    row_settings: Mapping[str, Any] | None = None,
    given_in_python: Sequence[str] = (),
    processes: int = 1,
    own_template: bool = False,
) -> dict[str, Any]:
    """
    Settings that reproduce an adapter, as flags of `hf-ftedit train`: what `edit_config.yaml` holds.

    `lora_targets` are the LoRA's modules as they were set, since PEFT writes out the names of `"all-linear"`, and
    `row_settings` those of a builder of the user, where they are not those of `args`; with `own_template` the folder
    brings the chat template.
    """
    config, rows = model.config, row_settings or {}
    # By the weights, as `model.to(dtype)` leaves the configuration as it is; packed ones have one of their own.
    is_packed = getattr(config, "quantization_config", None) is not None
    dtype = getattr(config if is_packed else model, "dtype", None)
    settings: dict[str, Any] = {
        "model_name_or_path": public_name(getattr(config, "_name_or_path", "") or "unknown"),
        "model_revision": getattr(config, "_commit_hash", None) or None,
        "gguf_file": getattr(model, "gguf_file", None),
        "dtype": str(dtype or "float32").removeprefix("torch."),
        **{option.name: getattr(args, option.name) for option in fields(EditOptions)},
        # The folder holds its own edits, chosen and in the native format: the command is run beside them.
        **{"edits": "edits.jsonl", "erase": None, "format": None, "max_edits": None},
    }
    # A path would tell of somebody's machine, and lead nowhere on another one.
    for name in (*SOURCES, "adapter"):
        settings[name] = public_name(settings[name]) if settings[name] else None
    if args.chat_template_path or own_template:
        settings["chat_template_path"] = TEMPLATE_FILE
    keys = (*TRAINING_KEYS, *CHOOSING_KEYS) if args.metric_for_best_model else TRAINING_KEYS
    settings |= {key: _plain(getattr(args, key)) for key in keys}
    settings |= _lora_settings(model, lora_targets)
    settings |= {name: value for name, value in rows.items() if name != "seed"}
    recipe = {name: value for name, value in settings.items() if value is not None}
    # The rows of a builder may have another seed than the training; `seed` itself is the training's.
    provenance = provenance_of(recipe, model, [args.edits, args.locality_pool, args.training_texts])
    if (seed := rows.get("seed", args.seed)) != args.seed:
        provenance["seed_of_rows"] = seed
    if given_in_python:
        provenance["given_in_python"] = list(given_in_python)
    if processes > 1:
        provenance["processes"] = processes
    return {**recipe, PROVENANCE: provenance}


def peft_settings(config: Any) -> dict[str, Any]:
    """The settings of an adapter that no option has, where they are set."""
    values = {name: getattr(config, name, None) for name in PEFT_KEYS}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items() if value}


def inherited(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a downloaded `edit_config.yaml` that another training may reuse."""
    # An allow-list, as the file may come from anyone: no folder, token, code, or settings of the run.
    # Nor the strength, which is in the scale of the adapter's LoRA already.
    own = {"edits", "erase", "format", "max_edits", "adapter", "revoke", "full_finetune", "strength"}
    names = {option.name for option in fields(EditOptions)} - own
    names |= {*TRAINING_KEYS, *LORA_SETTINGS, *QUANTIZATION_KEYS}
    names |= {"model_name_or_path", "gguf_file", "dtype"}
    return {name: value for name, value in recipe.items() if name in names}


def options_of(recipe: Mapping[str, Any]) -> EditOptions:
    """The settings with which the edits of an adapter were measured."""
    names = {field.name for field in fields(EditOptions)} - {"adapter", "revoke"}
    return EditOptions(**{name: recipe[name] for name in names if name in recipe})


def quantization_of(recipe: Mapping[str, Any]) -> Any:
    """The quantization of an adapter's base model, as `from_pretrained` takes it."""
    from trl import get_quantization_config

    from hf_ftedit.training.config import EditModelConfig

    settings = {name: recipe[name] for name in (*QUANTIZATION_KEYS, "dtype") if name in recipe}
    return get_quantization_config(EditModelConfig(**settings))


def provenance_of(recipe: Mapping[str, Any], model: Any, sources: Iterable[Any]) -> dict[str, Any]:
    """The block `provenance` of `edit_config.yaml`: versions and the like, which are no settings of `train`."""
    defaults = _defaults()
    provenance: dict[str, Any] = {
        "made_with": {"hf_ftedit": __version__, **{name: version(name) for name in LIBRARIES}},
        "changed": [name for name, value in recipe.items() if name in defaults and value != defaults[name]],
    }
    if datasets := [name for name in sources if is_hub_dataset(name)]:
        provenance["datasets"] = datasets
    if hasattr(model, "peft_config"):
        provenance["rank"] = getattr(model.peft_config[model.active_adapter], "r", None)
        # By it a wrong base model is known: its name says nothing of a copy on a disk.
        provenance["base_fingerprint"] = weights_fingerprint(model)
    return {name: value for name, value in provenance.items() if value is not None}


def _defaults() -> dict[str, Any]:
    """Defaults of the settings that a user may choose to change; no settings that follow the hardware."""
    from hf_ftedit.training.config import EditConfig, EditModelConfig

    owners = (EditConfig, EditModelConfig)
    options = {option.name: option for owner in owners for option in fields(owner) if option.init}
    others = ("edits", "locality_pool", "perplexity_texts", "known_facts", "training_texts")
    return {
        name: _plain(option.default if option.default_factory is MISSING else option.default_factory())
        for name, option in options.items()
        if name not in (*others, "adapter", "revoke", "bf16", "dtype", "chat_date")
    }


def _lora_settings(model: Any, targets: Any) -> dict[str, Any]:
    if not hasattr(model, "peft_config"):
        return {"use_peft": False}
    config = model.peft_config[model.active_adapter]
    settings = {key: getattr(config, name, None) for key, name in LORA_KEYS.items()}
    settings["lora_target_parameters"] = sorted(getattr(config, "target_parameters", None) or ()) or None
    # PEFT replaces "all-linear" by the names of one model's layers, in the order of a set.
    if (targets := targets or config.target_modules) is not None:
        if isinstance(targets, str) and targets != "all-linear":  # a regular expression of the user's
            targets = model.base_model.targeted_module_names
        settings["lora_target_modules"] = [targets] if isinstance(targets, str) else sorted(targets)
    quantized = getattr(model.config, "quantization_config", None)
    if quantized is not None:
        settings |= {key: bool(getattr(quantized, key, False)) for key in ("load_in_4bit", "load_in_8bit")}
    if settings.get("load_in_4bit"):
        settings["bnb_4bit_quant_type"] = getattr(quantized, "bnb_4bit_quant_type", None)
        settings["use_bnb_nested_quant"] = getattr(quantized, "bnb_4bit_use_double_quant", None)
    return settings


def _plain(value: Any) -> Any:
    """Enumerations of transformers by their value."""
    return getattr(value, "value", value)
