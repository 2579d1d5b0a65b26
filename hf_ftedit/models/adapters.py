"""Adapters that anybody may have written: settings through a schema, weights looked at, then put on a model."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from safetensors import SafetensorError, safe_open

from hf_ftedit.errors import EditError, first_line, refusals_of_libraries, shown
from hf_ftedit.models.loading import base_model, weights_fingerprint
from hf_ftedit.untrusted import (
    NAME,
    REMEDY,
    Rule,
    check_regular,
    choice,
    either,
    flag,
    listed,
    mapped,
    maybe,
    number,
    parse_json,
    plain_name,
    read_as,
    text,
    whole,
)

# PyTorch and PEFT are imported in the functions that need them: checks must not load them.
if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
Shapes: TypeAlias = "dict[str, tuple[int, ...]]"  # of weights, by their names
LARGEST = 65504.0  # of a weight: float16 holds no larger number, and trained ones are far from it
names = listed(plain_name, of="names")
index = whole(0, 10_000_000)
rank = whole(1, 1_000_000)
# What PEFT is handed, by the kind of adapter. PEFT makes regular expressions of all names of modules but those in
# lists, and of these too in some places: `name` allows none that is more than a name.
SHARED: dict[str, Rule] = {
    "base_model_name_or_path": maybe(text(500)),
    "revision": maybe(text(200, r"\w[\w./-]*", "a branch, tag or commit")),
    "task_type": choice(None, "CAUSAL_LM"),
    **dict.fromkeys(("target_modules", "exclude_modules", "modules_to_save"), maybe(names)),
    "fan_in_fan_out": flag,
}
KINDS: dict[str, dict[str, Rule]] = {
    "LORA": SHARED
    | {
        "r": rank,
        "lora_alpha": number(0, 1_000_000),
        "lora_dropout": number(0, 1),
        "rank_pattern": maybe(mapped(other=rank)),
        "alpha_pattern": maybe(mapped(other=number(0, 1_000_000))),
        "layers_to_transform": maybe(either(index, listed(index, 10_000))),
        "layers_pattern": maybe(either(plain_name, names)),
        "target_parameters": maybe(listed(plain_name, 10_000, of="names")),
        "trainable_token_indices": maybe(either(listed(index), mapped(other=listed(index)))),
        # The others, such as PiSSA's, change the base model; these only say how training began.
        "init_lora_weights": choice(True, False, "gaussian", "orthogonal", "eva"),
        "bias": choice("none"),  # others overwrite the base model's
        **dict.fromkeys(("use_rslora", "use_dora", "lora_bias", "ensure_weight_tying"), flag),
    },
    "IA3": SHARED | {"feedforward_modules": maybe(names), "init_ia3_weights": flag},
}
# Where PEFT reads regular expressions, in texts and in the names of mappings.
PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "feedforward_modules")
PATTERN_MAPS = ("rank_pattern", "alpha_pattern")
# What PEFT writes into the file and does not need to load it.
NOT_HANDED = (
    *("peft_type", "peft_version", "auto_mapping", "inference_mode", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)


def adapter_settings(folder: str | Path, label: str | None = None) -> dict[str, Any]:
    """The settings in `adapter_config.json`, checked; with `peft_type`, and without what loading does not need."""
    file = Path(folder) / ADAPTER_CONFIG
    place = f"adapter {label or str(folder)!r}: {ADAPTER_CONFIG}"
    if not file.is_file():
        raise EditError(f"{place} is missing; {REMEDY}")
    return _checked(read_as(file, place, parse_json), place)


def _checked(values: Any, place: str) -> dict[str, Any]:
    """Settings of an adapter as [`adapter_settings`] gives them; raises for all that is not in `KINDS`."""
    kind = values.get("peft_type") if isinstance(values, dict) else None
    choice(*KINDS)(kind, f"{place}: peft_type")
    known = KINDS[str(kind)]
    # Settings of newer versions of PEFT, and kinds that are left out here, such as aLoRA: off they change nothing.
    idle = {name for name, value in values.items() if name not in known and value in (None, False, {}, [])}
    idle.update(NOT_HANDED)
    values = {name: value for name, value in values.items() if name not in idle}
    mapped(known)(values, place)
    return {"peft_type": kind, **values}


def check_peft_config(config: PeftConfig, model: Any) -> None:
    """Raise [`~hf_ftedit.EditError`] where `config` cannot be put on `model`, or not be saved and loaded again."""
    import torch
    from peft import get_peft_model

    # Before anything is computed: some change the base model's weights, whose own answers would be gone.
    _check_savable(_plain(config))
    # A copy of the modules alone, which leaves the model, its weights and the random numbers as they are.
    owned = (value for module in model.modules() for value in vars(module).values())
    owned = (value for value in owned if not isinstance(value, dict | list | set | torch.nn.Module))
    twins = {id(value): value for value in (*owned, *model.parameters(), *model.buffers())}
    for weight in model.parameters():
        if type(weight) is torch.nn.Parameter:  # quantized ones are frozen already
            twins[id(weight)] = torch.nn.Parameter(weight.detach(), weight.requires_grad)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            adapted = get_peft_model(copy.deepcopy(model, twins), copy.deepcopy(config), low_cpu_mem_usage=True)
    except Exception as error:  # PEFT raises errors of every kind
        raise EditError(f"peft_config does not fit this model: {first_line(error)[:300]}; change it") from error
    check_peft_model(adapted)


def check_peft_model(model: PeftModel) -> None:
    """Raise [`~hf_ftedit.EditError`] where the adapter of `model` could not be trained, saved and loaded again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    settings = _plain(model.peft_config[model.active_adapter])
    _check_savable(settings)
    _check_savable(settings | without_patterns(model, settings), patterns=())
    layers: Any = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    is_off = any(layer.merged or layer.disable_adapters for layer in layers)
    if is_off or not any(weight.requires_grad for weight in model.parameters()):
        raise EditError(
            "the adapter has no weight to train: it is loaded for inference, switched off or merged; give one with "
            "is_trainable=True, or with inference_mode=False in its peft_config"
        )
    if any(layer.active_adapters != [model.active_adapter] for layer in layers):
        raise EditError("the model has several active adapters, and one is trained and saved; switch the others off")
    if settings.get("lora_bias") and any(getattr(layer.get_base_layer(), "bias", None) is None for layer in layers):
        raise EditError("peft_config: lora_bias is for layers with a bias, and some here have none; leave it out")
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise EditError("peft_config puts an adapter on the output head, which is not trained; leave that out")


def _check_savable(settings: dict[str, Any], patterns: Sequence[str] = (*PATTERNS, *PATTERN_MAPS)) -> None:
    # A user's own patterns are allowed; they are written out as names.
    try:
        _checked({name: value for name, value in settings.items() if name not in patterns}, "peft_config")
    except EditError as error:
        problem = str(error).removesuffix(f"; {REMEDY}")
        remedy = "such an adapter could not be loaded again: change that or leave it out"
        raise EditError(f"{problem}; {remedy}") from error


def _plain(config: PeftConfig) -> dict[str, Any]:
    """An adapter's settings as they would stand in its file."""
    written = json.dumps(config.to_dict(), default=lambda each: sorted(each) if isinstance(each, set) else str(each))
    return json.loads(written)


def beyond_lora(config: PeftConfig) -> list[str]:
    """What an adapter has beyond pairs of matrices: with it, it cannot be merged with another one."""
    if (kind := str(getattr(config.peft_type, "value", config.peft_type))) != "LORA":
        return [kind]
    extras = ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters")
    return [name for name in extras if getattr(config, name, None)]


def merged(model: PeftModel) -> Any:
    """The base model with the adapter in its weights; those that other modules share are copied before."""
    import torch
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    layer: Any
    owners = Counter(id(weight) for module in base.modules() for weight in module._parameters.values())
    for layer in list(base.modules()):
        # New tokens are set, and not added, wherever they are used.
        if not isinstance(layer, BaseTunerLayer) or isinstance(layer, TrainableTokensLayer):
            continue
        owner = layer.get_base_layer()
        for name, weight in owner._parameters.items():
            if weight is not None and owners[id(weight)] > 1:
                owners[id(weight)] -= 1
                owner._parameters[name] = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad)
                for config in (base.config, base.config.get_text_config()):
                    config.tie_word_embeddings = False
    with refusals_of_libraries("leave it beside the base model, as an adapter"):
        return model.merge_and_unload()


def check_adapter(folder: str | Path, label: str | None = None) -> tuple[dict[str, Any], Shapes]:
    """
    The settings of the adapter in `folder` (`label` in errors), and the shapes of its weights by their names.

    The weights are not read, nor is torch loaded. Raises [`~hf_ftedit.EditError`] where it cannot be loaded safely.
    """
    folder, label = Path(folder), label or str(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        if (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
            raise EditError(
                f"{label!r} holds a whole model and no adapter; edit or measure it as any other, by its name"
            )
        raise EditError(
            f"adapter {label!r} has no {ADAPTER_WEIGHTS}; give the folder or Hub id of an adapter; pickled "
            "weights can run code and are not read: ask their author for safetensors"
        )
    check_regular(folder, label)
    settings = adapter_settings(folder, label)
    shapes = _shapes(folder, label)
    if not shapes:
        raise _unusable(label, "it has no weights")
    # PEFT would make room for any rank, before it sees that the weights have another one.
    ranks = [settings.get("r", 8), *(settings.get("rank_pattern") or {}).values()]
    if max(ranks) > (widest := max((size for shape in shapes.values() for size in shape), default=0)):
        raise _unusable(label, f"its settings say rank {max(ranks)}, and its weights have no more than {widest}")
    return settings, shapes


def load_adapter(
    model: Any, folder: str | Path, *, is_trainable: bool = False, adapter_name: str = "default"
) -> PeftModel:
    """
    Put the adapter in `folder` into `model`, beside others that it may have; only safetensors are read.

    Before a weight is read, names and shapes are compared with those that the settings mean on this model; then all
    values with what float16 holds; and in the end the model below with what it was.
    """
    from peft import PeftModel, PeftModelForCausalLM, get_peft_model_state_dict

    settings, shapes = check_adapter(folder)
    before = weights_fingerprint(model)
    with ExitStack() as undo:  # what does not fit is taken out again: the caller's model is as it was
        # PEFT and safetensors raise errors of every kind for what does not fit.
        try:
            config = _config_for(model, settings, str(folder))
            config.inference_mode = not is_trainable
            if hasattr(model, "peft_config"):
                adapted = model
                model.add_adapter(adapter_name, config)
                undo.callback(model.delete_adapter, adapter_name)
            else:
                adapted = (PeftModelForCausalLM if config.task_type else PeftModel)(model, config, adapter_name)
                undo.callback(adapted.unload)
            # `save_embedding_layers`: else PEFT looks the vocabulary up on the Hub.
            with warnings.catch_warnings(action="ignore"):  # on how to save, as if it were to be saved
                weights = get_peft_model_state_dict(adapted, adapter_name=adapter_name, save_embedding_layers=False)
            _check_weights(Path(folder), shapes, {name: tuple(weight.shape) for name, weight in weights.items()})
            adapted.load_adapter(folder, adapter_name, is_trainable=is_trainable)
        except (EditError, MemoryError):
            raise
        except Exception as error:
            raise _unusable(str(folder), f"it does not fit this model ({first_line(error)[:200]})") from error
        if weights_fingerprint(adapted) != before:
            raise _unusable(str(folder), "it changes the base model's own weights")
        undo.pop_all()
    return adapted.eval()


def _config_for(model: Any, settings: dict[str, Any], label: str) -> PeftConfig:
    """PEFT's configuration by the `settings` of an adapter, with those names of modules alone that `model` has."""
    from peft import IA3Config, LoraConfig

    paths = [name.split(".") for name, _ in base_model(model).named_modules()]
    there = {".".join(path[start:]) for path in paths for start in range(len(path))}  # "a.b.c", "b.c" and "c"
    # PEFT compares each name with each module: a million of them would take hours.
    for key in ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"):
        if settings.get(key):
            settings[key] = sorted(there & set(settings[key]))
    for key in PATTERN_MAPS:
        if settings.get(key):
            settings[key] = {name: value for name, value in settings[key].items() if name in there}
    if not (settings.get("target_modules") or settings.get("target_parameters")):
        raise _unusable(label, "its target_modules name no module of this model")
    if "init_lora_weights" in settings:  # what training began with is overwritten
        settings["init_lora_weights"] = bool(settings["init_lora_weights"])
    return {"LORA": LoraConfig, "IA3": IA3Config}[settings.pop("peft_type")](**settings)


def without_patterns(model: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an adapter's settings in which its user gave regular expressions, with the names that they mean."""
    # Whoever loads the adapter runs no regular expression of a stranger.
    modules = model.get_base_model().named_modules()
    layers = {name: layer for name, layer in modules if hasattr(layer, "active_adapters")}
    active, named = model.active_adapter, dict[str, Any]()
    if any(not _are_names(settings.get(key)) for key in ("target_modules", "exclude_modules", "layers_pattern")):
        named = dict.fromkeys(("exclude_modules", "layers_pattern", "layers_to_transform"))
        named["target_modules"] = sorted(model.base_model.targeted_module_names)
    if not _are_names(settings.get("feedforward_modules")):
        named["feedforward_modules"] = [name for name, layer in layers.items() if layer.is_feedforward]
    for key, own in zip(PATTERN_MAPS, ("r", "lora_alpha"), strict=True):
        if not _are_names(list(settings.get(key) or ())):
            values = {name: getattr(layer, own).get(active) for name, layer in layers.items() if hasattr(layer, own)}
            named[key] = {name: value for name, value in values.items() if value not in (None, settings[own])}
    return named


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(NAME.fullmatch(each) for each in value))


def _shapes(folder: Path, label: str) -> Shapes:
    """Names and shapes of the weights in `folder`, by the file's header; all are numbers of 16 bits or more."""
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise _unusable(label, first_line(error)[:200]) from error
    for name, (kind, _) in kinds.items():
        if kind not in ("F16", "BF16", "F32"):
            raise _unusable(label, f"its weight {shown(name)} is of type {kind}")
    return {name: shape for name, (_, shape) in kinds.items()}


def _check_weights(folder: Path, shapes: Shapes, expected: Shapes) -> None:
    """Raise where the weights in `folder` are not the expected ones, or hold NaN or a number beyond `LARGEST`."""
    label = str(folder)
    if missing := expected.keys() - shapes.keys():
        raise _unusable(label, f"it lacks the weight {shown(min(missing))} of this model")
    # Among them weights of the base model, which PEFT would overwrite: what counts as unedited would be theirs.
    if foreign := shapes.keys() - expected.keys():
        raise _unusable(label, f"its weight {shown(min(foreign))} is none of an adapter on this model")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise _unusable(label, f"its weight {shown(name)} is {shape}, and {expected[name]} on this model")
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        for name, shape in shapes.items():
            largest = float(file.get_tensor(name).abs().max()) if math.prod(shape) else 0.0
            if not largest <= LARGEST:  # NaN is no more and no less than any number
                raise _unusable(label, f"its weight {shown(name)} holds {largest}")


def _unusable(label: str, problem: str) -> EditError:
    return EditError(f"adapter {label!r} cannot be loaded: {problem}; {REMEDY}, or give the base it is for")
