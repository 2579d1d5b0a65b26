"""A model as it is run when it is measured: without gradients and dropout, and with GELU in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers.activations import NewGELUActivation

_fused_gelu = partial(torch.nn.functional.gelu, approximate="tanh")


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """
    Context in which `model` is measured; its mode (train or eval) and its modules are as before behind it.

    GPT-2, GPT-J and their kin write the tanh approximation of GELU out in eight elementwise operations; PyTorch has it
    as one. Both agree to rounding.
    """
    written_out = [m for m in model.modules() if type(m) is NewGELUActivation and "forward" not in vars(m)]
    was_training = model.training
    model.eval()
    for module in written_out:
        module.forward = _fused_gelu  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            yield
    finally:
        for module in written_out:
            del module.forward
        model.train(was_training)
