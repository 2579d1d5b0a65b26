import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import bpe_tokenizer, tiny_model

from hf_ftedit.models import scaled_gradients


def lora_model(family):
    torch.manual_seed(0)
    settings = {"fan_in_fan_out": True} if family == "gpt2" else {}
    model = get_peft_model(
        tiny_model(family, bpe_tokenizer()), LoraConfig(target_modules="all-linear", r=4, lora_bias=True, **settings)
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def gradients(model, loss):
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids).loss


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_position_adds_its_scale_to_gradients(family):
    model, ids = lora_model(family), torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    scale = torch.linspace(0, 2, 14).view(2, 7)
    # By hooks on the plain model: the outer products of what goes into a layer and the gradient of what comes out.
    seen, expected, handles = {}, {}, []
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and module.weight.requires_grad:

            def keep(module, inputs, output, name=name):
                seen[name] = inputs[0].detach()
                output.register_hook(lambda grad: expected.__setitem__(name, (grad, seen[name])))

            handles.append(module.register_forward_hook(keep))
    plain = gradients(model, loss_of(model, ids))
    for handle in handles:
        handle.remove()
    with scaled_gradients(model, scale):
        loss = loss_of(model, ids)
        scaled = gradients(model, loss)
    assert expected and loss == loss_of(model, ids)
    for name, (grad, inputs) in expected.items():
        outer = torch.einsum("blo,bli,bl->oi", grad, inputs, scale)
        torch.testing.assert_close(scaled[f"{name}.weight"], outer, atol=1e-6, rtol=1e-4)
        if f"{name}.bias" in plain:  # which is no weight of a position
            torch.testing.assert_close(scaled[f"{name}.bias"], plain[f"{name}.bias"])


def test_without_a_scale_or_with_ones_nothing_changes():
    model, ids = lora_model("llama"), torch.tensor([[5, 6, 7]])
    plain = gradients(model, loss_of(model, ids))
    for scale in (None, torch.ones(1, 3), torch.zeros(1, 4)):  # the last is of other places than the layers see
        with scaled_gradients(model, scale):
            torch.testing.assert_close(gradients(model, loss_of(model, ids)), plain)
    assert not any("forward" in vars(module) for module in model.modules())


def test_positions_of_no_scale_add_nothing_where_activations_are_recomputed():
    model, ids = lora_model("llama").train(), torch.tensor([[5, 6, 7]])
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with scaled_gradients(model, torch.zeros(1, 3)):
        found = gradients(model, loss_of(model, ids))
    assert all(grad.eq(0).all() for name, grad in found.items() if name.endswith("weight"))


def test_in_bfloat16_by_autocast():
    model, ids, scale = lora_model("llama"), torch.tensor([[5, 6, 7]]), torch.tensor([[0.5, 1, 0.25]])
    with scaled_gradients(model, scale):
        exact = gradients(model, loss_of(model, ids))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, ids)
        found = gradients(model, loss)
    largest = max(grad.norm() for grad in exact.values())
    for name, grad in found.items():
        assert grad.dtype == torch.float32 and (grad - exact[name]).norm() <= 0.02 * largest, name
