"""Kernels that compute the same, faster: of float32 products on some CPUs, of attention, of an activation."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LEAST_WIDTH = 256  # oneDNN compiles a kernel for each shape that it meets: in narrower models that takes what it saves
MOST_PLACES = 512  # the weights of attention, which are kept for the backward pass, are few in so short rows

_fused_gelu = partial(torch.nn.functional.gelu, approximate="tanh")
_by_onednn: ContextVar[bool] = ContextVar("by_onednn", default=False)


@contextmanager
def fast_kernels(model: Any) -> Iterator[None]:
    """Run `model` with faster kernels, equal to rounding: a fused GELU and, where it is wide, [`fast_products`]."""
    with ExitStack() as undo:
        # GPT-2, GPT-J and their kin write the tanh approximation of GELU out in eight elementwise operations, an
        # eighth of an evaluation or a training step on the CPU. PyTorch has it as one.
        for module in model.modules():
            if type(module) is NewGELUActivation and "forward" not in vars(module):
                module.forward = _fused_gelu  # type: ignore[method-assign]
                undo.callback(delattr, module, "forward")
        if _is_wide(model):
            # Of a slice of the last places, as `generate` takes it, PyTorch makes a product for each row, for which
            # oneDNN copies frozen weights: of a head of 49,152 words a gigabyte for nine rows.
            if head := model.get_output_embeddings():
                undo.callback(head.register_forward_pre_hook(_contiguous).remove)
            undo.enter_context(fast_products())
        yield


def _contiguous(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return args[0].contiguous(), *args[1:]


@contextmanager
def fast_products() -> Iterator[None]:
    """
    Have oneDNN, not MKL, compute float32 products on a CPU where it is twice as fast: AMD's Zen 5.

    MKL reaches half of the rate there. PyTorch calls oneDNN where factors may be rounded to bfloat16; it has such
    kernels for AMX alone, and without it computes in float32 all the same.
    """
    if not _onednn_is_faster():
        yield
        return
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    # It keeps what it compiled for each shape, of 1,024 shapes by itself: half a gigabyte, of which no later batch has
    # much. The layers of a batch share some 30.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    token, before = _by_onednn.set(True), matmul.fp32_precision
    # It is one setting for all threads, whose products are as exact by either library: who changed it puts it back.
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        if before != "bf16":
            matmul.fp32_precision = before
        _by_onednn.reset(token)


@contextmanager
def fast_attention(length: int) -> Iterator[None]:
    """Context for attention over so many places, by plain products where oneDNN has those: the fused one is MKL's."""
    if not _by_onednn.get() or length > MOST_PLACES:
        yield
        return
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _attention
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if before is not _attention:
            ALL_ATTENTION_FUNCTIONS["sdpa"] = before


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' `sdpa` with a mask: the heads that share a key in one product, without a copy of it for each."""
    if attention_mask is None or attention_mask.shape[1] > 1 or dropout or settings.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **settings)
    rows, heads, length, width = query.shape
    keys, columns = key.shape[1], key.shape[2]
    if attention_mask.dtype == torch.bool:
        attention_mask = added_to_scores(attention_mask, query.dtype)
    mask = attention_mask.expand(rows, heads // keys, length, columns).reshape(rows, 1, -1, columns)
    scores = torch.baddbmm(
        mask.expand(rows, keys, -1, columns).flatten(0, 1),
        query.reshape(rows * keys, -1, width),
        key.reshape(rows * keys, columns, width).transpose(1, 2),
        alpha=width**-0.5 if scaling is None else scaling,
    )
    answers = scores.softmax(dim=-1) @ value.reshape(rows * keys, columns, -1)
    return answers.view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


def added_to_scores(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean attention mask, true where something is attended to, as what is added to the attention's scores."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)


def _is_wide(model: Any) -> bool:
    """Tell whether a model on the CPU is in float32 and wide enough."""
    if getattr(model, "dtype", None) != torch.float32 or model.device.type != "cpu":
        return False
    return getattr(model.config.get_text_config(), "hidden_size", 0) >= LEAST_WIDTH


def _onednn_is_faster() -> bool:
    """Tell whether the processor is a Zen 5, by what it alone has, where PyTorch is new enough to know."""
    # Of the others Intel's have AMX or lack one of the two, and Zen 4, whose units are half as wide, was not measured.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    has = [capabilities.get(name, False) for name in ("avx512_bf16", "avx512_vp2intersect", "amx_tile")]
    return hasattr(torch.backends.mkldnn, "matmul") and has == [True, True, False]
