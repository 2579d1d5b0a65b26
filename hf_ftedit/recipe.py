"""The recipe of an adapter: the settings that reproduce it, without paths, tokens or anything of the machine."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from hf_ftedit.loading import EMBEDDED_NAME, asset
from hf_ftedit.options import EditOptions

# What of the training arguments decides the weights. An allow-list: arguments also hold tokens and paths.
TRAINING_KEYS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "max_length",
    "train_sampling_strategy",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
    "loss_type",
    "label_smoothing_factor",
    "neftune_noise_alpha",
)
LORA_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "lora_modules_to_save": "modules_to_save",
    "lora_target_parameters": "target_parameters",
}


def recipe_of(trainer: Any) -> dict[str, Any]:
    """
    Settings that reproduce the trainer's adapter, as flags of `hf-ftedit train`: what `edit_config.yaml` holds.

    Args:
        trainer ([`~hf_ftedit.EditTrainer`]):
            The trainer.
    """
    args, config = trainer.args, trainer.model.config
    recipe: dict[str, Any] = {"model_name_or_path": public_name(getattr(config, "_name_or_path", "") or "unknown")}
    if revision := getattr(config, "_commit_hash", None):
        recipe["model_revision"] = revision
    recipe["dtype"] = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    recipe |= {option.name: getattr(args, option.name) for option in fields(EditOptions)}
    recipe |= {"edits": "edits.jsonl", "format": None, "max_edits": None}
    for name in ("locality_pool", "perplexity_texts"):
        recipe[name] = public_name(recipe[name]) if recipe[name] else None
    recipe["similar_model"] = public_name(recipe["similar_model"])
    recipe |= {key: _plain(getattr(args, key)) for key in TRAINING_KEYS}
    recipe |= _lora(trainer)
    return {key: value for key, value in recipe.items() if value is not None}


def public_name(source: str) -> str:
    """A model or data source as others may know it: a Hub id as it is, a file or folder by its own name alone."""
    if Path(source) == Path(asset("model")):
        return EMBEDDED_NAME
    return Path(source).resolve().name if Path(source).exists() or Path(source).is_absolute() else source


def _lora(trainer: Any) -> dict[str, Any]:
    adapters = getattr(trainer.model, "peft_config", {})
    config = adapters.get("default") or next(iter(adapters.values()), None)
    if config is None:
        return {"use_peft": False}
    found = {key: getattr(config, name, None) for key, name in LORA_KEYS.items()}
    if (targets := trainer.lora_targets) is not None:
        found["lora_target_modules"] = [targets] if isinstance(targets, str) else sorted(targets)
    quantized = getattr(trainer.model.config, "quantization_config", None)
    if quantized is not None:
        found |= {key: bool(getattr(quantized, key, False)) for key in ("load_in_4bit", "load_in_8bit")}
    if found.get("load_in_4bit"):
        found["bnb_4bit_quant_type"] = getattr(quantized, "bnb_4bit_quant_type", None)
        found["use_bnb_nested_quant"] = getattr(quantized, "bnb_4bit_use_double_quant", None)
    return found


def _plain(value: Any) -> Any:
    """Enumerations of transformers by their value."""
    return getattr(value, "value", value)
