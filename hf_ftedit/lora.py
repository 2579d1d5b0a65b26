"""The LoRA that an edit trains: the paper's by default, on the modules that the model has."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def default_lora() -> PeftConfig | None:
    """LoRA of rank 32, alpha 64, dropout 0.05 on all linear layers (Gangadhar & Stratos 2024)."""
    from trl import get_peft_config

    from hf_ftedit.config import EditModelConfig

    return get_peft_config(EditModelConfig())


def fit_lora(config: PeftConfig | None, model: PreTrainedModel, *, embedding: bool = False) -> PeftConfig | None:
    """
    `config` fitted to `model`: GPT-2's transposed layers, and the token embedding when asked.

    Args:
        config (`PeftConfig`):
            A LoRA; any other kind of adapter is returned as it is.
        model (`PreTrainedModel`):
            Model that gets the adapter.
        embedding (`bool`, *optional*, defaults to `False`):
            Adapt the token embedding too. Serving engines may not support that.
    """
    from peft import LoraConfig

    if not isinstance(config, LoraConfig):
        return config
    linear = _linear_layers(model)
    config = replace(config, fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in linear))
    if embedding:
        found = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is found)
        if isinstance(config.target_modules, str) and config.target_modules != "all-linear":  # a regular expression
            config.target_modules = f"(?:{config.target_modules})|{re.escape(name)}"
        else:
            wanted = linear if config.target_modules == "all-linear" else list(config.target_modules or linear)
            config.target_modules = [*wanted, name]
    return config


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers but for the output head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
