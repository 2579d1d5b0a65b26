"""How far an adapter moves the outputs of its layers: what stays is to stay inside the model too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer

from hf_ftedit.models.tokenization import IGNORE_INDEX


class LayerChange(NamedTuple):
    """What a LoRA layer adds to its output in a forward pass, `scale * weight @ inner`, and to how large a one."""

    inner: torch.Tensor  # (batch, length, rank)
    weight: torch.Tensor  # (outputs, rank)
    scale: float
    size: torch.Tensor  # (batch, length): norm of the output without it


@contextmanager
def recorded_changes(model: torch.nn.Module, *, is_on: bool = True) -> Iterator[list[LayerChange]]:
    """Record what the LoRA layers of `model` add in the forward passes within; nothing where it is not on."""
    changes: list[LayerChange] = []
    sizes: dict[LoraLayer, torch.Tensor] = {}

    # Both keep what there is anyway, and compute nothing for the gradient: where activations are recomputed for it,
    # that is without these hooks.
    def measure(layer: LoraLayer, _: Any, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):  # attention as one layer puts out more
            sizes[layer] = output.detach().norm(dim=-1, dtype=torch.float32)

    def record(layer: LoraLayer, name: str, _: Any, args: Any, output: torch.Tensor) -> None:
        if layer in sizes:
            weight: Any = layer.lora_B[name].weight
            changes.append(LayerChange(output, weight, layer.scaling[name], sizes[layer]))

    hooks = []
    for layer in model.modules() if is_on else ():
        if isinstance(layer, LoraLayer):
            hooks.append(layer.get_base_layer().register_forward_hook(partial(measure, layer)))
            hooks += [part.register_forward_hook(partial(record, layer, name)) for name, part in layer.lora_A.items()]
    try:
        yield changes
    finally:
        for hook in hooks:
            hook.remove()


def row_changes(changes: Sequence[LayerChange], inputs: dict[str, Any]) -> torch.Tensor:
    """
    How far an adapter moves each row `(batch,)` of the inputs of [`~hf_ftedit.models.target_logits`].

    Of a token it is the root of the mean square, over layers, of the norm of what is added by that of the output
    without it; of a row the mean over its tokens but the last one, which is only ever predicted. Layers that do not
    see each token in its place, as experts and the head, are left out.
    """
    shape = inputs.get("trees", inputs)["input_ids"].shape
    nothing, squares = torch.zeros(shape, device=inputs["labels"].device), []
    for inner, weight, scale, size in changes:
        if size.shape == shape:
            # |B a|^2 by the few numbers of the rank: the gradient of what is added would need all of it in memory.
            inner, weight = inner.float(), weight.float()
            square = (inner @ (weight.T @ weight) * inner).sum(dim=-1).clamp(min=0)
            relative = scale**2 * square / size.clamp(min=1e-6) ** 2
            squares.append(relative.to(nothing.device))  # a model's layers may be on several
    # A little beside it, as the slope of a root is infinite at 0, where a LoRA begins.
    moved = (sum(squares, nothing) / max(1, len(squares)) + 1e-8).sqrt()
    if "trees" in inputs:
        # The token from which a row's last one is predicted sees just the row's tokens.
        last = (inputs["labels"][:, 1:] != IGNORE_INDEX).sum(dim=1).cumsum(dim=0) - 1
        visible, places = (inputs["trees"][name].to(moved.device) for name in ("visible", "places"))
        rows, nodes = places[last].unbind(1)
        moved, mask = moved[rows], visible[rows, nodes]
    else:
        moved, mask = moved[:, :-1], inputs["attention_mask"][:, 1:]  # padding is on the right
    return (moved * mask).sum(dim=1) / mask.sum(dim=1)
