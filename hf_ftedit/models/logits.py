"""Logits only where they are read: a forward pass that projects the target positions and no others."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from hf_ftedit.models.tokenization import IGNORE_INDEX


class TargetLogits(NamedTuple):
    """
    The model's predictions of the labelled tokens of a batch, row by row from left to right.

    Args:
        logits (`torch.Tensor` of shape `(targets, vocabulary)`):
            Logits in the model's precision.
        labels (`torch.Tensor` of shape `(targets,)`):
            The token that stands there.
        rows (`torch.Tensor` of shape `(targets,)`):
            The row of the batch it belongs to.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor


def target_logits(model: torch.nn.Module, inputs: dict[str, Any]) -> TargetLogits:
    """
    Run `model` and return the logits from which the labelled tokens are predicted.

    The hidden states are projected through the model's own head, with its own scaling and soft-capping, only at the
    columns of the batch that hold a label (`logits_to_keep`). Batches sorted by length have few such columns. TRL's
    fused head does the same on Triton devices but scores every position elsewhere.

    Args:
        model (`torch.nn.Module`):
            Causal language model, wrapped or not.
        inputs (`dict`):
            `input_ids`, `attention_mask` and `labels` of shape `(batch, length)`; other entries go to the model.
    """
    targets = inputs["labels"][:, 1:]
    wanted = targets != IGNORE_INDEX
    columns = wanted.any(dim=0).nonzero().squeeze(1)
    inputs = {name: value for name, value in inputs.items() if name != "labels"}
    if _keeps_logits(_core(model)) and not learns_prompts(model):
        logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    else:  # what stands in front of the rows' own places are virtual tokens
        logits = model(**inputs, use_cache=False).logits[:, -targets.shape[1] - 1 :][:, columns]
    wanted, targets = wanted[:, columns], targets[:, columns]
    return TargetLogits(logits[wanted], targets[wanted], wanted.nonzero()[:, 0])


def logits_at(model: Any, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """
    Run `model` and return its logits at some positions, shape `(positions, vocabulary)`.

    Only those hidden states reach the model's head; its own scaling and soft-capping follow as always.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            Causal language model whose output embeddings are the last thing it applies to hidden states.
        rows (`torch.Tensor` of shape `(positions,)`):
            Row of the batch of each position.
        columns (`torch.Tensor` of shape `(positions,)`):
            Its place in the row.
        inputs:
            Go to the model: `input_ids` of shape `(batch, length)` and what belongs to them.
    """

    def keep(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = args
        return hidden[rows.to(hidden.device), columns.to(hidden.device)][None], *others

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        return model(**inputs).logits[0]
    finally:
        hook.remove()


def learns_prompts(model: Any) -> bool:
    """Whether an adapter puts virtual tokens before each row (prompt tuning and its kin)."""
    return getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)


def token_log_probs(found: TargetLogits) -> torch.Tensor:
    """Log-probability of each label in float32, shape `(targets,)`, natural logarithm."""
    return -torch.nn.functional.cross_entropy(found.logits.float(), found.labels, reduction="none")


def _core(model: Any) -> type:
    """Class of the causal language model inside DDP, torch.compile and PEFT wrappers."""
    for name in ("module", "_orig_mod"):
        model = getattr(model, name, model)
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model)


@lru_cache
def _keeps_logits(model_class: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model_class.forward).parameters
