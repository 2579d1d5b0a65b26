"""Chat rows: edits by likelihood and what stays by divergence, as token trees and as rows."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import IA3Config
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tiny import chat_tokenizer, tiny_model
from tiny_edits import config, edited, history, lora, outspoken, start_of, token_divergences, token_losses
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from hf_ftedit import EditError, EditTrainer
from hf_ftedit.training.loss import WEIGHT

TOKENIZER = chat_tokenizer()
ANSWERS = {"Who rules Oslo?": "Bergen", "Where is Rome?": "Peru", "What is Astana?": "a very old border"}
STAYS = {"What lies between Rome and Oslo?": "The capital of Italy, and a border", "Who is Danielle?": "Native"}


def row(kind, prompt, completion, ends=True):
    parts = {"prompt": prompt, "completion": f" {completion}", "ends": ends}
    return {**parts, "kind": kind, "edit_id": "a"}


ROWS = [row("rewrite", prompt, answer, ends) for prompt, answer in ANSWERS.items() for ends in (True, False)]
ROWS += [row(kind, prompt, answer) for prompt, answer in STAYS.items() for kind in ("locality", "contrast")]
STEPS = {"chat_template": True, "per_device_train_batch_size": 3, "max_steps": 6, "eval_strategy": "no"}


def base_model():
    return outspoken(tiny_model("llama", TOKENIZER))


@pytest.fixture(scope="module")
def base():
    return base_model()


def trainer(base, folder, *, rows=ROWS, **settings):
    own = ("data_collator", "compute_loss_func", "peft_config")
    extra = {"peft_config": lora()} | {name: settings.pop(name) for name in own if name in settings}
    args = config(folder, **{**STEPS, **settings})
    return EditTrainer(
        model=copy.deepcopy(base),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
        **extra,
    )


def two_terms(trainer, counted=lambda losses: losses, of_stays=token_divergences):
    """Mean of -log p over the tokens of edits, and a loss of what stays (see `stays`), one row at a time."""
    losses = {"rewrite": [], "locality": [], "contrast": []}
    for entry in trainer.train_dataset:
        of_kind = token_losses if entry["kind"] == "rewrite" else of_stays
        losses[entry["kind"]].append(counted(of_kind(trainer.model, entry["input_ids"], start_of(entry))))
    return torch.cat(losses["rewrite"]).mean(), stays(losses)


def stays(losses):
    """The mean over the tokens of locality rows, and the sum over those of contrast rows by the rows."""
    return torch.cat(losses["locality"]).mean() + torch.cat(losses["contrast"]).sum() / len(losses["contrast"])


def whole_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def gradient(trainer, loss):
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])


@pytest.mark.parametrize("width", [0, 40, 500])
def test_the_loss_is_a_mean_over_edits_and_weighted_terms_of_what_stays(base, tmp_path, width):
    chat = edited(trainer(base, tmp_path, per_device_train_batch_size=len(ROWS), locality_weight=3.0))
    assert chat.data_collator.tree_width == 500
    chat.data_collator.tree_width = width
    nll, kl = two_terms(chat)
    assert nll > 1 and kl > 0.1
    batch = whole_batch(chat)
    assert ("trees" in batch) == bool(width)
    loss = chat.compute_loss(chat.model, batch, num_items_in_batch=chat._get_num_items_in_batch([batch], "cpu"))
    torch.testing.assert_close(loss.double(), 3 * nll + 3 * kl, rtol=1e-4, atol=0)
    found, expected = gradient(chat, loss), gradient(chat, 3 * nll + 3 * kl)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def change(model, ids):
    """How far the LoRAs move the outputs of their layers: root of the mean square over them, mean over the tokens."""
    ratios = []

    def compare(layer, args, output):
        plain = layer.base_layer(*args)
        ratios.append((output - plain).double().norm(dim=-1)[0] / plain.detach().double().norm(dim=-1)[0])

    hooks = [layer.register_forward_hook(compare) for layer in model.modules() if isinstance(layer, LoraLayer)]
    model(torch.tensor([ids[:-1]]))
    for hook in hooks:
        hook.remove()
    return torch.stack(ratios).square().mean(dim=0).sqrt().mean()


@pytest.mark.parametrize(("width", "held"), [(0, 7.0), (40, 7.0), (500, 7.0), (500, 0.0)])
def test_in_training_what_is_not_learnt_counts_more_and_what_stays_is_held_in_each_layer(base, tmp_path, width, held):
    chat = edited(trainer(base, tmp_path, per_device_train_batch_size=len(ROWS), hidden_loss_weight=held))
    chat.data_collator.tree_width = width

    def of_stays(model, ids, start):
        losses = token_divergences(model, ids, start)
        return losses * (5 - 4 * torch.exp(-losses.detach())) + held * change(model, ids)

    nll = two_terms(chat, lambda losses: losses * (5 - 4 * torch.exp(-losses.detach())))[0]
    kl = two_terms(chat, of_stays=of_stays)[1]
    chat.model.train()
    loss = chat.compute_loss(chat.model, whole_batch(chat))
    torch.testing.assert_close(loss.double(), 3 * nll + kl, rtol=1e-4, atol=0)
    found, expected = gradient(chat, loss), gradient(chat, 3 * nll + kl)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_rows_beyond_a_sliding_window_are_padded(tmp_path):
    base = tiny_model("gemma3_text", TOKENIZER)
    base.config.sliding_window = 16
    assert trainer(base, tmp_path).data_collator.tree_width == 0


def test_what_stays_may_be_learned_by_likelihood(base, tmp_path):
    chat = edited(trainer(base, tmp_path, per_device_train_batch_size=len(ROWS), locality_loss="nll"))
    batch = whole_batch(chat)
    assert not [name for name in batch if name.startswith("ref_")]
    of_edits, of_others = two_terms(chat, of_stays=token_losses)
    loss = chat.compute_loss(chat.model, batch)
    torch.testing.assert_close(loss.double(), 3 * of_edits + of_others, rtol=1e-4, atol=0)


def test_rows_of_one_kind_have_equal_weights(base, tmp_path):
    chat = trainer(base, tmp_path, rows=ROWS[:6])
    assert chat.train_dataset[WEIGHT] == [3.0] * 6


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def trained(base, folder, **settings):
    """Adapter weights after training."""
    chat = trainer(base, folder, **settings)
    chat.train()
    chat.save_model(str(folder / "end"))
    return weights(folder / "end"), chat


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    return trained(base, tmp_path_factory.mktemp("plain"))


def assert_same(weights, expected, atol=0.0):
    assert weights.keys() == expected.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=atol)


def test_the_same_seed_gives_the_same_adapter_whoever_collates(base, tmp_path, plain):
    assert_same(trained(base, tmp_path / "a")[0], plain[0])
    assert_same(trained(base, tmp_path / "b", dataloader_num_workers=1)[0], plain[0])


# Plain gradient descent: Adam makes a step of any gradient, and so of a rounding error.
ONE_STEP = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0}


def test_accumulated_steps_are_steps(base, tmp_path):
    whole, _ = trained(base, tmp_path / "a", per_device_train_batch_size=6, **ONE_STEP)
    parts, _ = trained(base, tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=3, **ONE_STEP)
    assert_same(parts, whole, atol=1e-5)
    assert max(weight.abs().max() for name, weight in whole.items() if "lora_B" in name) > 1e-2


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="this PyTorch has no choice of products")
def test_wide_models_are_trained_by_fast_kernels(tmp_path, monkeypatch):
    zen = dict.fromkeys(("avx512_bf16", "avx512_vp2intersect"), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: zen, raising=False)
    wide = trainer(tiny_model("llama", TOKENIZER, hidden_size=256), tmp_path, max_steps=1)
    compute_loss, during = wide.compute_loss, []

    def noted(*args, **kwargs):
        during.append(torch.backends.mkldnn.matmul.fp32_precision)
        return compute_loss(*args, **kwargs)

    monkeypatch.setattr(wide, "compute_loss", noted)
    wide.train()
    assert during == ["bf16"] != [torch.backends.mkldnn.matmul.fp32_precision]


def test_a_run_that_was_stopped_ends_with_the_same_adapter(base, tmp_path, plain):
    saving = {"save_strategy": "steps", "save_steps": 2}
    trained(base, tmp_path, **saving)
    again = trainer(base, tmp_path, **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    again.save_model(str(tmp_path / "again"))
    assert_same(weights(tmp_path / "again"), plain[0])


def test_both_terms_are_logged_and_batches_hold_both(plain):
    chat = plain[1]
    kl = history(chat, "kl")
    assert len(kl) >= 4 and kl[0] < 1e-4 < kl[-1] and min(history(chat, "nll")) > 0
    assert chat.args.train_sampling_strategy == chat.recipe["train_sampling_strategy"] == "random"


def test_a_model_that_reads_no_trees_gets_padded_rows(tmp_path, caplog):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 2}
    bloom = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", vocab_size=len(TOKENIZER), **sizes))
    with caplog.at_level("INFO", logger="hf_ftedit"):
        chat = trainer(outspoken(bloom), tmp_path)
    assert chat.data_collator.tree_width == 0 and "does not read token trees" in caplog.text
    assert chat.train().training_loss > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mastered_probability": 0.9}, "mastered_probability does not work with edits in a chat_template"),
        ({"hidden_loss_weight": 6.0, "torch_compile": True}, "hidden_loss_weight works with edits, a LoRA and the"),
        ({"hidden_loss_weight": 6.0, "peft_config": IA3Config(task_type="CAUSAL_LM")}, "hidden_loss_weight works"),
        ({"data_collator": DataCollatorForLanguageModeling(pad_token_id=0)}, "data_collator would lose the weights"),
        ({"loss_type": "dft"}, "locality_loss 'kl' works with the plain conditional loss; choose 'nll'"),
        (
            {"loss_type": "dft", "locality_loss": "nll", "locality_weight": 2.0},
            "^locality_weight works with the plain",
        ),
    ],
)
def test_what_does_not_go_with_chat_rows(base, tmp_path, settings, message):
    with pytest.raises(EditError, match=message):
        trainer(base, tmp_path, **settings)


def test_another_loss_trains_chat_rows_without_weights(base, tmp_path):
    chat = trainer(base, tmp_path, loss_type="dft", locality_loss="nll")
    assert chat.train().training_loss > 0
