"""The LoRA that an edit trains: the paper's by default, on the modules that the model has and that can take one."""

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from trl import get_peft_config

from hf_ftedit.errors import EditError, refusals_of_libraries
from hf_ftedit.models import beyond_lora, check_peft_config, check_peft_model
from hf_ftedit.training.config import EditConfig, EditModelConfig

logger = logging.getLogger(__name__)

# In a chat: the facts are in the MLPs, and near names stay apart better than with attention; and few passes need no
# dropout.
CHAT_LORA: dict[str, Any] = {"lora_target_modules": ["mlp"], "lora_dropout": 0.0}
LINEAR = (torch.nn.Linear, Conv1D)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
TAKEN = "which PEFT takes for a weight of experts or their router in such a model"
ROUTER = re.compile(r"(^|\.)(router|(\w+_expert_)?gate)(\.|$)")


def adapter_for(model: Any, args: EditConfig, config: PeftConfig | None) -> PeftConfig | None:
    """
    The adapter to put on `model`: the user's `config`, or the paper's; none on a model that has one already.

    Raises [`~hf_ftedit.EditError`] where the adapter, or the one that the model has, could not be trained, saved and
    loaded again.
    """
    if config is not None and not isinstance(config, PeftConfig):
        raise EditError(f"peft_config is of type {type(config).__name__}: give a configuration of peft, as LoraConfig")
    if args.full_finetune and (config is not None or hasattr(model, "peft_config")):
        # The adapter alone would be trained, and the recipe say that all weights were.
        raise EditError("full_finetune trains no adapter, and one is given; leave one of the two out")
    if hasattr(model, "peft_config"):
        # A second adapter beside the one that training goes on from would leave its edits untrained.
        if config is not None:
            raise EditError("peft_config is given, and the model has an adapter already; leave one of the two out")
        check_peft_model(model)
        return None
    if args.full_finetune:
        return None
    config = config or get_peft_config(EditModelConfig(**CHAT_LORA if args.chat_template else {}))
    with refusals_of_libraries("correct the pattern, or give names"):  # what a user may give as a regular expression
        fitted: Any = fit_lora(config, model, embedding=args.lora_embedding, layers=args.lora_layers)
        _check_names(fitted, model)
    check_peft_config(fitted, model)
    if extra := beyond_lora(fitted):
        logger.warning("an adapter with %s can be merged into its base model, and not with other adapters", extra[0])
    return fitted


def fit_lora(
    config: PeftConfig | None, model: PreTrainedModel, *, embedding: bool = False, layers: list[int] | None = None
) -> PeftConfig | None:
    """
    `config` fitted to `model`, where it is a LoRA: GPT-2's transposed layers, the token embedding, some layers.

    By default routers, which choose among experts, and layers that cannot take a LoRA are left out; one of the latter
    that is named is an [`~hf_ftedit.EditError`]. Of a model that reads images too only the decoder is adapted.
    """
    if not isinstance(config, LoraConfig):
        return config
    head, unfit, idle = model.get_output_embeddings(), _unfit(model), _outside_decoder(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR) and module is not head]
    linear = [name for name in linear if name not in idle]
    fit = [name for name in linear if name not in unfit and not ROUTER.search(name)]
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in fit)
    targets = config.target_modules
    if targets is None and not config.target_parameters:
        # PEFT has its own ones for some kinds of models, but for mixtures of experts it takes none of them.
        is_known = getattr(model.config, "model_type", None) in PEFT_TARGETS and len(unfit) <= 1 and not idle
        targets = None if is_known and layers is None and not embedding else "all-linear"
    targets = _checked_targets(_with_mlp(targets, fit), model, linear, unfit, idle)
    if layers is not None:
        _check_layers(layers, model, targets)
    # PEFT has no word for some layers, and in a mixture of experts means routers too: the modules are named.
    if targets == "all-linear" and (layers is not None or idle or len(fit) < len(linear) or len(unfit) > 1):
        targets = [
            name
            for name in _short_names(fit, model)
            if layers is None or "." not in name or any(f".{layer}." in name for layer in layers)
        ]
    # A copy: one configuration of the user may serve several trainers.
    config = replace(config, fan_in_fan_out=transposed, target_modules=targets)
    if layers is not None:
        config.layers_to_transform = layers
    if embedding:
        table = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is table)
        if isinstance(config.target_modules, str) and config.target_modules != "all-linear":  # a regular expression
            config.target_modules = f"(?:{config.target_modules})|{re.escape(name)}"
        else:
            targets = fit if config.target_modules == "all-linear" else list(config.target_modules or ())
            config.target_modules = [*targets, name]
    _fit_experts(config, model)
    return config


def _with_mlp(targets: Any, fit: list[str]) -> Any:
    """Modules to adapt with the MLPs' linear layers in place of the word "mlp"; all, where no module is called so."""
    names = [targets] if isinstance(targets, str) else list(targets or ())
    if "mlp" not in names:
        return targets
    inside = {f"mlp.{name.rpartition('.mlp.')[2]}" for name in fit if ".mlp." in name}
    return sorted({*names, *inside} - {"mlp"}) if inside else "all-linear"


def _outside_decoder(model: PreTrainedModel) -> set[str]:
    """Names of modules that texts never run through: the towers for images or sound of a model that reads both."""
    decoder: Any = model.get_decoder()
    if model.config.get_text_config() is model.config or decoder is None:
        return set()
    inside = {*decoder.modules(), model.get_output_embeddings()}
    return {name for name, module in model.named_modules() if module not in inside}


def _checked_targets(
    targets: Any, model: PreTrainedModel, linear: list[str], unfit: Mapping[str, str], idle: set[str]
) -> Any:
    """Modules to adapt, each of which the model has, and can adapt: PEFT passes over one that it has not."""
    names, chosen = [name for name, _ in model.named_modules() if name not in idle], set[str]()
    if targets is None or targets == "all-linear":
        return targets
    # TRL makes a word of a list of one: it may be no pattern but a name.
    is_pattern = isinstance(targets, str) and any(re.fullmatch(targets, name) for name in names)
    targets = [targets] if isinstance(targets, str) and not is_pattern else targets
    for target in [targets] if is_pattern else sorted(targets):
        matching = [name for name in names if (re.fullmatch(target, name) if is_pattern else _is_end(target, name))]
        if not matching:
            some = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise EditError(
                f"lora_target_modules: the model has no module {target!r}; its linear ones are {some}{_hint(model)}"
            )
        if wrong := next((name for name in matching if name in unfit), None):
            raise EditError(
                f"lora_target_modules: {target!r} names {wrong}, {unfit[wrong]}; leave it out{_hint(model)}"
            )
        chosen.update(matching)
    return sorted(chosen) if idle else targets  # an end or a pattern would name modules outside the decoder too


def _check_names(config: Any, model: Any) -> None:
    """Raise for a name in other settings than the targets that nothing in the model has: PEFT passes over it."""
    modules = [name for name, _ in model.named_modules()]
    names = [*modules, *(name for name, _ in model.named_parameters())]
    for setting in ("modules_to_save", "exclude_modules", "rank_pattern", "alpha_pattern"):
        value = getattr(config, setting, None) or ()
        for name in [value] if isinstance(value, str) else value:
            if not any(re.fullmatch(rf"(.*\.)?({name})", known) for known in names):
                leaves = {known.rpartition(".")[2] for known in modules}
                some = ", ".join(sorted(leaf for leaf in leaves if leaf and not leaf.isdigit()))
                raise EditError(
                    f"{setting} of the adapter: the model has no module {name!r}; leave it out, or name one of {some}"
                )


def _check_layers(layers: list[int], model: PreTrainedModel, targets: Any) -> None:
    count = model.config.get_text_config().num_hidden_layers
    if not layers or min(layers) < 0 or max(layers) >= count:
        raise EditError(f"lora_layers is {layers}: give numbers from 0 to {count - 1}, the model's layers")
    if isinstance(targets, str) and targets != "all-linear":
        raise EditError("lora_layers and a pattern as target_modules do not go together; put the layers into it")


def _unfit(model: PreTrainedModel) -> dict[str, str]:
    """Modules that a LoRA cannot be put on, or on which it would change nothing, with the reason."""
    modules, head = dict(model.named_modules()), model.get_output_embeddings()
    kinds: set[Any] = set(map(type, modules.values()))
    codes = {kind: _forward_code(kind) for kind in kinds}
    taken = {leaf for leaf in {name.rpartition(".")[2] for name in modules} if leaf and _means_experts(leaf, model)}
    reasons = {}
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, CONVOLUTIONS):
            reasons[name] = "a convolution"
        elif module is head:
            reasons[name] = "the output head"
        elif leaf in taken:
            reasons[name] = TAKEN
        elif not isinstance(module, LINEAR):
            continue
        elif ROUTER.search(name) and "forward" in vars(type(module)) and type(module) not in LINEAR:
            reasons[name] = "a router of experts"
        elif re.search(rf"\bself\.{leaf}\.weight\b(?!\.(dtype|device))", codes[type(modules[parent])]):
            reasons[name] = "whose weight the model reads without running it"
    return reasons


def _means_experts(name: str, model: PreTrainedModel) -> bool:
    """Tell whether PEFT makes of a module of this name weights of experts, as some kinds of models once had them."""
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one of two that are one weight by now
        return True
    return bool(config.target_parameters)


@cache
def _forward_code(module_class: type) -> str:
    """Source of a class's methods that run it; empty where it cannot be read."""
    methods = [method for name, method in inspect.getmembers(module_class, inspect.isfunction) if "forward" in name]
    try:
        return "".join(map(inspect.getsource, methods))
    except OSError:
        return ""


def _fit_experts(config: LoraConfig, model: PreTrainedModel) -> None:
    """Check the single weights to adapt, for which PEFT has no dropout; say which experts stay as they are."""
    weights, targets = [name for name, _ in model.named_parameters()], config.target_parameters or []
    for target in targets:
        if not any(_is_end(target, name) for name in weights):
            raise EditError(f"lora_target_parameters: the model has no weight {target!r}{_hint(model)}")
    if targets and config.lora_dropout:
        logger.warning("lora_dropout is off: PEFT has none for single weights, which lora_target_parameters names")
        config.lora_dropout = 0.0
    if frozen := [name for name in _experts(model) if not any(_is_end(target, name) for target in targets)]:
        logger.warning("the experts stay frozen (%s); lora_target_parameters names those to train", ", ".join(frozen))


def _experts(model: PreTrainedModel) -> list[str]:
    """Ends of the names of weights that hold many experts each, or that PEFT takes for such: a LoRA can name these."""
    names = [name for name, weight in model.named_parameters() if ".experts." in name and weight.dim() == 3]
    taken = [name for name, reason in _unfit(model).items() if reason == TAKEN and not ROUTER.search(name)]
    return sorted({".".join(name.split(".")[-3:]) for name in (*names, *(f"{name}.weight" for name in taken))})


def _hint(model: PreTrainedModel) -> str:
    experts = ", ".join(_experts(model))
    return f"; its experts are {experts}: name them as lora_target_parameters" if experts else ""


def _short_names(names: list[str], model: PreTrainedModel) -> list[str]:
    """The last part of each name, or all of it where a module that is not named ends like it."""
    chosen = set(names)
    others = {name.rpartition(".")[2] for name, _ in model.named_modules() if name not in chosen}
    return sorted({name if (leaf := name.rpartition(".")[2]) in others else leaf for name in names})


def _is_end(target: str, name: str) -> bool:
    return f".{name}".endswith(f".{target}")
