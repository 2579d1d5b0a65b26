"""Gradients of weights to which some positions of a row add more than others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def scaled_gradients(model: torch.nn.Module, scale: torch.Tensor | None) -> Iterator[None]:
    """
    Multiply what each position adds to the gradient of trained linear layers, such as LoRA's, by its `scale`.

    Outputs, and gradients of what comes before, stay as they are. Layers that see other shapes than `(*scale.shape,
    width)`, as experts do, learn from all positions alike. Backward passes belong inside where activations are
    recomputed.

    Args:
        model (`torch.nn.Module`): Any model; its `torch.nn.Linear` layers with a weight to train are changed.
        scale (`torch.Tensor`, *optional*): Shape `(batch, length)`; without it nothing changes.
    """
    if scale is None:
        yield
        return
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear and module.weight.requires_grad]
    for layer in layers:
        layer.forward = partial(_forward, layer, scale)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: torch.nn.Linear, scale: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    weight = layer.weight
    if inputs.shape[:-1] != scale.shape or not torch.is_grad_enabled():
        return torch.nn.functional.linear(inputs, weight, layer.bias)
    if torch.is_autocast_enabled(inputs.device.type):
        precision = torch.get_autocast_dtype(inputs.device.type)
        inputs, weight = inputs.to(precision), weight.to(precision)
    outputs = _Product.apply(inputs, weight, scale)
    return outputs if layer.bias is None else outputs + layer.bias


class _Product(torch.autograd.Function):
    """`inputs @ weight.T`, with the gradient for `weight` of each position times its `scale`."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight, scale)
        return torch.nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None]:
        (gradient,) = gradients
        inputs, weight, scale = ctx.saved_tensors
        scaled = gradient * scale[..., None].to(gradient)
        own = gradient @ weight if ctx.needs_input_grad[0] else None
        return own, scaled.flatten(0, -2).T @ inputs.flatten(0, -2), None
