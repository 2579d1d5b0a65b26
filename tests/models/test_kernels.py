import os
from threading import Event, Thread

import pytest
import torch
from test_logits import TOKENIZER, ragged_batch
from tiny import tiny_model
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_ftedit import EditError
from hf_ftedit.models import fast_kernels, kernels, target_logits
from hf_ftedit.models.kernels import fast_attention

MATMUL = getattr(torch.backends.mkldnn, "matmul", None)
HERE = getattr(torch.cpu, "get_capabilities", dict)()
ZEN = {"avx512_bf16": True, "avx512_vp2intersect": True, "amx_tile": False}

has_choice = pytest.mark.skipif(MATMUL is None or not HERE, reason="this PyTorch has no choice of products")


def wide(width=256, **settings):
    """A random Llama of two layers."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4, "num_key_value_heads": 2}
    return tiny_model("llama", TOKENIZER, **sizes, **settings)


def gradients(model, batch):
    """Gradients of a batch's likelihood."""
    targets = target_logits(model, batch)
    torch.nn.functional.cross_entropy(targets.logits, targets.labels).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.skipif(any(HERE.get(name) != ZEN[name] for name in ZEN), reason="products are MKL's on this processor")
def test_products_stay_exact_in_float32():
    exact = gradients(wide().double(), ragged_batch())
    with fast_kernels(model := wide()), fast_attention(9):
        fast = gradients(model, ragged_batch())
    assert (fast - exact).norm() < 1e-6 * exact.norm()


def test_a_written_out_gelu_is_fused_for_the_context_alone():
    exact = gradients(tiny_model("gpt2", TOKENIZER).double(), ragged_batch())
    model = tiny_model("gpt2", TOKENIZER)
    activations = [module for module in model.modules() if isinstance(module, NewGELUActivation)]
    with fast_kernels(model):
        assert activations and all(module.forward.func is torch.nn.functional.gelu for module in activations)
        fast = gradients(model, ragged_batch())
    assert (fast - exact).norm() < 1e-6 * exact.norm()
    assert not any("forward" in vars(module) for module in activations)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("is_bool", [False, True])
def test_attention_by_products_is_that_of_transformers(rows, is_bool):
    torch.manual_seed(0)
    shapes = [(rows, 6, 5, 8), (rows, 2, 7, 8), (rows, 2, 7, 4)]  # three heads for each key, two places in a cache
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    mask = torch.rand(rows, 1, 5, 7) < 0.6
    mask[..., 0] = True
    if not is_bool:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill_(~mask, torch.finfo(torch.float64).min)
    theirs = sdpa_attention_forward(module, *tensors, mask, scaling=0.3)[0]
    ours = kernels._attention(module, *tensors, mask, scaling=0.3)[0]
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    for gradients_of in zip(*(torch.autograd.grad((x * weights).sum(), tensors) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(*gradients_of)


@has_choice
def test_products_are_chosen_for_the_context_alone(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ZEN)
    before = MATMUL.fp32_precision
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    with pytest.raises(EditError), fast_kernels(wide()):
        assert MATMUL.fp32_precision == "bf16" and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
        with fast_kernels(wide()), fast_attention(512):
            assert _cur_sdpa_kernel_backends() == [SDPBackend.MATH]
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is kernels._attention
        with fast_attention(513):  # its weights would take much memory
            assert SDPBackend.FLASH_ATTENTION in _cur_sdpa_kernel_backends()
        assert MATMUL.fp32_precision == "bf16"
        raise EditError("an error")
    assert MATMUL.fp32_precision == before != "bf16"
    with fast_attention(9):
        assert SDPBackend.FLASH_ATTENTION in _cur_sdpa_kernel_backends()
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


@has_choice
def test_the_head_gets_no_slice_for_which_frozen_weights_would_be_copied(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ZEN)
    model, is_contiguous = wide().requires_grad_(False), []
    model.lm_head.register_forward_hook(lambda head, args, output: is_contiguous.append(args[0].is_contiguous()))
    batch = {name: value for name, value in ragged_batch().items() if name != "labels"}
    exact = model(**batch, logits_to_keep=1).logits
    with fast_kernels(model):
        fast = model(**batch, logits_to_keep=1).logits
    assert is_contiguous == [False, True] and not model.lm_head._forward_pre_hooks
    torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-4)


@has_choice
def test_threads_that_overlap_leave_the_setting_as_it_was(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ZEN)
    before, has_entered, may_leave = MATMUL.fp32_precision, Event(), Event()

    def run():
        with fast_kernels(wide()):
            has_entered.set()
            may_leave.wait()

    other = Thread(target=run)
    with fast_kernels(wide()):
        other.start()
        has_entered.wait()
    may_leave.set()
    other.join()
    assert MATMUL.fp32_precision == before != "bf16"


@has_choice
@pytest.mark.parametrize(
    ("capabilities", "make"),
    [
        (ZEN, lambda: wide(192)),  # kernels would take longer to make than they save
        (ZEN, lambda: wide().bfloat16()),
        (ZEN, lambda: wide().to("meta")),
        (ZEN | {"amx_tile": True}, wide),  # which would round to bfloat16
        (ZEN | {"avx512_vp2intersect": False}, wide),
        ({}, wide),
    ],
)
def test_other_products_are_left_alone(monkeypatch, capabilities, make):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    before = MATMUL.fp32_precision
    with fast_kernels(make()), fast_attention(9):
        assert MATMUL.fp32_precision == before
        assert SDPBackend.FLASH_ATTENTION in _cur_sdpa_kernel_backends()
