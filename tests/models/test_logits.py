import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_likelihood import build, encoded
from tiny import FAMILIES, bpe_tokenizer, moved, tiny_model

from hf_ftedit.models.collator import CompletionOnlyCollator
from hf_ftedit.models.logits import target_logits, token_log_probs

TOKENIZER = bpe_tokenizer()


def ragged_batch():
    """Three rows of lengths 9, 7 and 4, with targets of one, two and three tokens at different places."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, len(TOKENIZER), (3, 9), generator=generator)
    input_ids[2, 2] = 0  # token 0 is a token
    mask = torch.tensor([[1] * 9, [1] * 7 + [0] * 2, [1] * 4 + [0] * 5])
    labels = torch.full((3, 9), -100)
    for row, (start, stop) in enumerate([(8, 9), (5, 7), (1, 4)]):
        labels[row, start:stop] = input_ids[row, start:stop]
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def reference(model, batch):
    """Full logits, one unpadded row at a time."""
    logits, labels, rows = [], [], []
    for row, (ids, mask, wanted) in enumerate(zip(*batch.values(), strict=True)):
        found = model(input_ids=ids[mask.bool()][None]).logits[0]
        for position in (wanted != -100).nonzero()[:, 0].tolist():
            logits.append(found[position - 1])
            labels.append(int(wanted[position]))
            rows.append(row)
    return torch.stack(logits), labels, rows


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_the_targets_are_those_of_a_plain_forward_pass(family):
    model = tiny_model(family, TOKENIZER)
    batch = ragged_batch()
    with torch.no_grad():
        expected, labels, rows = reference(model, batch)
        found = target_logits(model, batch)
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-4)
    assert (found.labels.tolist(), found.rows.tolist()) == (labels, rows)
    assert "labels" in batch and 0 in labels  # the caller's batch is left alone
    logprobs = expected.log_softmax(-1)[range(6), labels]
    torch.testing.assert_close(token_log_probs(found.logits, found.labels), logprobs, atol=1e-5, rtol=1e-4)


def test_only_the_columns_with_a_target_are_projected():
    model = tiny_model("llama", TOKENIZER)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    batch = ragged_batch()
    batch["labels"][2] = batch["labels"][1] = -100
    target_logits(model, batch)
    assert seen == [(3, 1, len(TOKENIZER))]


def test_a_model_that_keeps_all_logits_gives_the_same():
    model = tiny_model("llama", TOKENIZER)

    class Plain(torch.nn.Module):
        def forward(self, input_ids, attention_mask, use_cache):
            return model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    with torch.no_grad():
        torch.testing.assert_close(target_logits(Plain(), ragged_batch()), target_logits(model, ragged_batch()))


def test_gradients_reach_an_adapter():
    model = get_peft_model(tiny_model("gpt2", TOKENIZER), LoraConfig(target_modules="all-linear", fan_in_fan_out=True))
    (-token_log_probs(*target_logits(model, ragged_batch())[:2]).sum()).backward()
    grads = [weight.grad for name, weight in model.named_parameters() if "lora_B" in name]
    assert grads and all(grad is not None and grad.abs().sum() > 0 for grad in grads)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma3_text", "mistral"])
@pytest.mark.parametrize("width", [8, 64])
def test_gradients_through_token_trees_are_those_of_separate_rows(family, width):
    model = moved(build(family))
    pairs = encoded()
    rows = [{"input_ids": pair.input_ids, "labels": pair.labels, "length": 0} for pair in pairs]
    collator = CompletionOnlyCollator(pad_token_id=0)
    collator.tree_width = width
    weight = torch.linspace(0.5, 2, sum(len(pair.input_ids) - pair.start for pair in pairs))
    loras = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}

    found = target_logits(model, batch := collator(rows))
    assert (batch["trees"]["input_ids"].shape[0] > 1) == (width == 8)
    trees = torch.autograd.grad((token_log_probs(found.logits, found.labels) * weight).sum(), list(loras.values()))

    alone = [
        target_logits(model, ragged) for ragged in map(CompletionOnlyCollator(pad_token_id=0), ([r] for r in rows))
    ]
    assert found.labels.tolist() == [label for part in alone for label in part.labels.tolist()]
    assert found.rows.tolist() == [row for row, part in enumerate(alone) for _ in part.labels]
    torch.testing.assert_close(found.logits, torch.cat([part.logits for part in alone]), atol=1e-5, rtol=1e-5)
    losses = (torch.cat([token_log_probs(part.logits, part.labels) for part in alone]) * weight).sum()
    for name, tree, row in zip(loras, trees, torch.autograd.grad(losses, list(loras.values())), strict=True):
        assert (tree - row).abs().max() <= 1e-5 * max(1, row.abs().max()), name
        assert row.abs().max() > 1e-4
