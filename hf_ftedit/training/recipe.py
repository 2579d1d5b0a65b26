"""The recipe of an adapter: the settings that reproduce it, without paths, tokens or anything of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from importlib.metadata import version
from typing import Any

from hf_ftedit import __version__
from hf_ftedit.data import is_hub_dataset
from hf_ftedit.errors import EditError
from hf_ftedit.models import public_name, weights_fingerprint
from hf_ftedit.options import PROVENANCE, EditOptions
from hf_ftedit.training.config import EditConfig, EditModelConfig

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
    "dataloader_drop_last",
    "average_tokens_across_devices",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
    "loss_type",
    "label_smoothing_factor",
    "neftune_noise_alpha",
)
LIBRARIES = ("transformers", "trl", "peft", "torch")
LORA_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "lora_modules_to_save": "modules_to_save",
    "lora_target_parameters": "target_parameters",
}
QUANTIZATION_KEYS = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")


def recipe_of(trainer: Any) -> dict[str, Any]:
    """
    Settings that reproduce the trainer's adapter, as flags of `hf-ftedit train`: what `edit_config.yaml` holds.

    Args:
        trainer ([`~hf_ftedit.EditTrainer`]):
            The trainer.
    """
    args, config = trainer.args, trainer.model.config
    sources = [args.edits, args.locality_pool]
    recipe: dict[str, Any] = {"model_name_or_path": public_name(getattr(config, "_name_or_path", "") or "unknown")}
    if revision := getattr(config, "_commit_hash", None):
        recipe["model_revision"] = revision
    recipe["dtype"] = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    recipe |= {option.name: getattr(args, option.name) for option in fields(EditOptions)}
    recipe |= {"edits": "edits.jsonl", "format": None, "max_edits": None, PROVENANCE: None}
    for name in ("locality_pool", "perplexity_texts", "similar_model", "adapter"):
        recipe[name] = public_name(recipe[name]) if recipe[name] else None
    recipe |= {key: _plain(getattr(args, key)) for key in TRAINING_KEYS}
    recipe |= _lora(trainer)
    recipe |= {name: value for name, value in trainer.row_settings.items() if name != "seed"}
    recipe = {key: value for key, value in recipe.items() if value is not None}
    provenance = provenance_of(recipe, trainer.model, sources)
    if (seed := trainer.row_settings.get("seed", args.seed)) != args.seed:
        provenance["seed_of_rows"] = seed
    if trainer.given_in_python:
        provenance["given_in_python"] = trainer.given_in_python
    if (count := trainer.accelerator.num_processes) > 1:
        provenance["processes"] = count
    return {**recipe, PROVENANCE: provenance}


def inherited(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """
    What of somebody's `edit_config.yaml` another training may take over: the settings that [`recipe_of`] writes.

    It may come from anywhere, so nothing else of it is used: no folder, token, code, or settings of the run.

    Args:
        recipe (`Mapping`):
            The settings.
    """
    own = {"edits", "format", "max_edits", "adapter", "revoke", "merge_into_base", "full_finetune", PROVENANCE}
    names = {option.name for option in fields(EditOptions)} - own
    names |= {*TRAINING_KEYS, *LORA_KEYS, *QUANTIZATION_KEYS, "lora_target_modules", "model_name_or_path", "dtype"}
    return {name: value for name, value in recipe.items() if name in names}


def options_of(recipe: Mapping[str, Any]) -> EditOptions:
    """
    The settings with which the edits of an adapter were measured.

    Args:
        recipe (`Mapping`):
            What its `edit_config.yaml` holds.

    Raises:
        [`~hf_ftedit.EditError`]: a setting is of a wrong type.
    """
    names = {field.name for field in fields(EditOptions)} - {"adapter", "revoke"}
    try:
        return EditOptions(**{name: recipe[name] for name in names if name in recipe})
    except TypeError as error:
        raise EditError(
            f"edit_config.yaml holds a setting of a wrong type ({error}); write or download it again"
        ) from error


def quantization_of(recipe: Mapping[str, Any]) -> Any:
    """How the base model was quantized, as `from_pretrained` takes it."""
    from trl import get_quantization_config

    settings = {name: recipe[name] for name in (*QUANTIZATION_KEYS, "dtype") if name in recipe}
    return get_quantization_config(EditModelConfig(**settings))


def asked_settings(*options: Any) -> dict[str, Any]:
    """
    What a user asks for, by the names of a recipe, but for files, and for what the hardware decides.

    Args:
        options:
            Instances of [`~hf_ftedit.EditConfig`] and [`~hf_ftedit.EditModelConfig`].
    """
    own = {"edits", "format", "max_edits", "locality_pool", "perplexity_texts", "similar_model", PROVENANCE, "bf16"}
    names = {option.name for option in fields(EditOptions)} | {*TRAINING_KEYS, *LORA_KEYS, *QUANTIZATION_KEYS}
    known = {name: getattr(given, name) for given in options for name in names - own if hasattr(given, name)}
    known["adapter"] = public_name(known["adapter"]) if known.get("adapter") else None  # as a recipe names it
    return {name: _plain(value) for name, value in known.items()}


def provenance_of(recipe: Mapping[str, Any], model: Any, sources: Iterable[Any]) -> dict[str, Any]:
    """
    What `edit_config.yaml` holds under `provenance`: what is no setting of `hf-ftedit train`.

    Args:
        recipe (`Mapping`):
            The settings.
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            The edited model.
        sources (`Iterable`):
            Where edits and facts came from: those that are datasets of the Hub are named.

    Returns:
        `dict`: `made_with` (versions), `changed` (settings that are not the defaults), `datasets`, and, of an adapter,
        its `rank` and `base_fingerprint`, see [`~hf_ftedit.models.loading.weights_fingerprint`].
    """
    defaults = _defaults()
    provenance: dict[str, Any] = {
        "made_with": {"hf_ftedit": __version__, **{name: version(name) for name in LIBRARIES}},
        "changed": [name for name, value in recipe.items() if name in defaults and value != defaults[name]],
    }
    if datasets := [name for name in sources if is_hub_dataset(name)]:
        provenance["datasets"] = datasets
    if hasattr(model, "peft_config"):
        provenance["rank"] = getattr(model.peft_config[model.active_adapter], "r", None)
        provenance["base_fingerprint"] = weights_fingerprint(model)
    return {name: value for name, value in provenance.items() if value is not None}


def _defaults() -> dict[str, Any]:
    """Defaults of the settings that a user may choose to change; what follows the hardware is not among them."""
    known = {field.name: field for owner in (EditConfig, EditModelConfig) for field in fields(owner) if field.init}
    given = ("edits", "locality_pool", "perplexity_texts", "adapter", "revoke", "bf16", "dtype")
    return {name: _plain(_default(field)) for name, field in known.items() if name not in given}


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _lora(trainer: Any) -> dict[str, Any]:
    adapters = getattr(trainer.model, "peft_config", {})
    config = adapters.get("default") or next(iter(adapters.values()), None)
    if config is None:
        return {"use_peft": False}
    found = {key: getattr(config, name, None) for key, name in LORA_KEYS.items()}
    if (targets := trainer.lora_targets or config.target_modules) is not None:
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
