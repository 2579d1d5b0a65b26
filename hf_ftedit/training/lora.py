"""The LoRA that an edit trains: the paper's by default, on the modules that the model has."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.pytorch_utils import Conv1D
from trl import get_peft_config

from hf_ftedit.errors import EditError
from hf_ftedit.training.config import EditConfig, EditModelConfig

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig
    from transformers import PreTrainedModel


# In a chat: the facts are in the MLPs, and near names stay apart better than with attention; and few passes need no
# dropout.
CHAT_LORA: dict[str, Any] = {"lora_target_modules": ["mlp"], "lora_dropout": 0.0}


def adapter_for(model: PreTrainedModel, args: EditConfig, config: PeftConfig | None) -> PeftConfig | None:
    """The adapter to put on `model`: the user's `config`, or the paper's; none on a model that has one already."""
    if hasattr(model, "peft_config") and args.adapter:
        # A second adapter beside the one that training goes on from would leave its edits untrained.
        return None
    if hasattr(model, "peft_config") or (args.full_finetune and config is None):
        return config
    config = config or get_peft_config(EditModelConfig(**CHAT_LORA if args.chat_template else {}))
    return fit_lora(config, model, embedding=args.lora_embedding, layers=args.lora_layers)


def fit_lora(
    config: PeftConfig | None, model: PreTrainedModel, *, embedding: bool = False, layers: list[int] | None = None
) -> PeftConfig | None:
    """`config` fitted to `model`, where it is a LoRA: GPT-2's transposed layers, the token embedding, some layers."""
    from peft import LoraConfig

    if not isinstance(config, LoraConfig):
        return config
    linear = _linear_layers(model)
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in linear)
    targets = _checked_targets(_with_mlp(config.target_modules, linear), model, linear)
    # A copy: one configuration of the user may serve several trainers.
    config = replace(config, fan_in_fan_out=transposed, target_modules=targets)
    if layers is not None:
        _check_layers(layers, model, config)
        # PEFT takes no pattern beside numbers of layers: the modules are named.
        if config.target_modules in (None, "all-linear"):
            config.target_modules = sorted({name.rpartition(".")[2] for name in linear})
        config.layers_to_transform = layers
    if embedding:
        table = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is table)
        if isinstance(config.target_modules, str) and config.target_modules != "all-linear":  # a regular expression
            config.target_modules = f"(?:{config.target_modules})|{re.escape(name)}"
        else:
            targets = linear if config.target_modules == "all-linear" else list(config.target_modules or linear)
            config.target_modules = [*targets, name]
    return config


def _with_mlp(targets: Any, linear: list[str]) -> Any:
    """Modules to adapt with the MLPs' linear layers in place of the word "mlp"; all, where no module is called so."""
    names = [targets] if isinstance(targets, str) else list(targets or ())
    if "mlp" not in names:
        return targets
    inside = {f"mlp.{name.rpartition('.mlp.')[2]}" for name in linear if ".mlp." in name}
    return sorted({*names, *inside} - {"mlp"}) if inside else "all-linear"


def _checked_targets(targets: Any, model: PreTrainedModel, linear: list[str]) -> Any:
    """Modules to adapt, each of which the model has: PEFT passes over one that it has not, where it has another."""
    names = [name for name, _ in model.named_modules()]
    if targets is None or targets == "all-linear":
        return targets
    if isinstance(targets, str):
        if any(re.fullmatch(targets, name) for name in names):
            return targets
        # TRL makes a word of a list of one: it may be no pattern but a name.
        targets = [targets]
    for target in sorted(targets):
        if not any(f".{name}".endswith(f".{target}") for name in names):
            some = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise EditError(f"lora_target_modules: the model has no module {target!r}; its linear ones are {some}")
    return targets


def _check_layers(layers: list[int], model: PreTrainedModel, config: LoraConfig) -> None:
    count = model.config.get_text_config().num_hidden_layers
    if not layers or min(layers) < 0 or max(layers) >= count:
        raise EditError(f"lora_layers is {layers}: give numbers from 0 to {count - 1}, the model's layers")
    if isinstance(config.target_modules, str) and config.target_modules != "all-linear":
        raise EditError("lora_layers and a pattern as target_modules do not go together; put the layers into it")


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers but for the output head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
