"""Scores agree with one pair at a time and plain logits, whether or not a model reads token trees."""

import io
import itertools
import logging

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from test_measurement import CAPITAL, reference
from test_prefix_tree import trie_size
from tiny import bos_tokenizer, bpe_tokenizer, moved, sentencepiece_tokenizer, tiny_model
from tqdm.auto import tqdm

from hf_ftedit.errors import EditError
from hf_ftedit.models import tree_support
from hf_ftedit.models.likelihood import score_pairs
from hf_ftedit.models.prefix_tree import token_trees
from hf_ftedit.models.tokenization import encode_pairs

TOKENIZER = bpe_tokenizer()
PROMPTS = [
    "The capital of Kazakhstan is",
    "Rome is in",
    "The capital of Kazakhstan is",
    "Oslo",
    "The capital of Peru is",
    "Rome is in the far north of",
    "The capital",
]
TARGETS = ["Astana", "Italy and a part of Peru", "Almaty", "lies between Bergen", "Lima", "Norway", "of Mars is old"]

# What `tiny_model` does not know. The layers of gpt_oss and the Gemmas alternate between all tokens and a window.
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128}
SETTINGS = {
    "gemma2": ALTERNATING | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": ALTERNATING,
    "gpt_oss": ALTERNATING,
    "gpt_neo": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    "llama4_text": {"num_local_experts": 2, "no_rope_layers": [1, 1]},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 256},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "causal": True, "n_langs": 1, "max_position_embeddings": 256},
}
TREES = ["gpt2", "gptj", "llama", "opt", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral", "gpt_oss", "gpt_neo"]
ROWS = ["bloom", "mpt", "mamba", "xlm"]


def wide(model):
    """`model` with weights so large that every token and every place tells in its logits."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.15)
    return model.eval()


def memorised(model, tokenizer, records, steps=30):
    """Make some answers of a random model right, so that matches and accuracies are not all zero."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    texts = [tokenizer(f"{record.prompt} {record.target_new}", return_tensors="pt").input_ids for record in records]
    for ids in itertools.islice(itertools.cycle(texts), steps):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    return model.eval()


def build(family, tokenizer=TOKENIZER, **settings):
    return wide(tiny_model(family, tokenizer, **SETTINGS.get(family, {}) | settings))


def assert_agrees(scores, expected, atol=1e-4):
    logprobs, matches, accuracies = zip(*expected, strict=True)
    np.testing.assert_allclose(scores.logprob, logprobs, rtol=0, atol=atol)
    assert scores.match.tolist() == list(matches)
    assert scores.token_accuracy == pytest.approx(list(accuracies), abs=1e-12)


def slowly(model, tokenizer=TOKENIZER, prompts=PROMPTS, targets=TARGETS):
    return [reference(model, tokenizer, *pair) for pair in zip(prompts, targets, strict=True)]


def encoded(prompts=PROMPTS, targets=TARGETS, tokenizer=TOKENIZER):
    return encode_pairs(tokenizer, prompts, [f" {target}" for target in targets])


@torch.no_grad()
def reads_trees(model, *texts):
    pairs = encoded(*texts)
    longest, largest = max(len(pair.input_ids) for pair in pairs), len(token_trees(pairs)[0].tokens)
    return tree_support.reads_trees(model.eval(), longest, largest)


@pytest.mark.parametrize("family", [*TREES, "llama4_text", *ROWS])
def test_scores_are_those_of_one_pair_at_a_time(family):
    model = build(family)
    expected = slowly(model)
    assert np.ptp([logprob for logprob, _, _ in expected]) > 0.2  # the pairs differ by more than the tolerance
    assert_agrees(score_pairs(model, TOKENIZER, PROMPTS, TARGETS), expected)
    for budget in (1, 16, 40):
        assert_agrees(score_pairs(model, TOKENIZER, PROMPTS, TARGETS, tokens_per_batch=budget), expected)


@pytest.mark.parametrize("make", [sentencepiece_tokenizer, bos_tokenizer])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_scores_agree_whatever_the_tokenizer_puts_in_front(family, make):
    tokenizer = make()
    model = build(family, tokenizer)
    assert_agrees(score_pairs(model, tokenizer, PROMPTS, TARGETS), slowly(model, tokenizer))


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_hits_and_misses_are_told_apart(family):
    model = memorised(build(family), TOKENIZER, [CAPITAL])
    prompts, targets = [*PROMPTS, CAPITAL.prompt], [*TARGETS, f"{CAPITAL.target_new} in Peru"]
    scores = score_pairs(model, TOKENIZER, prompts, targets)
    assert_agrees(scores, slowly(model, TOKENIZER, prompts, targets))
    assert scores.match[0] and not scores.match[1]
    assert 0 < scores.token_accuracy[-1] < 1


@pytest.mark.parametrize("family", [*TREES, *ROWS])
def test_which_models_read_trees(family):
    assert reads_trees(build(family)) == (family in TREES)


def test_a_kernel_that_takes_no_mask_reads_no_trees():
    model = build("llama")
    assert reads_trees(model)
    model.set_attn_implementation("flex_attention")
    assert not reads_trees(model)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("shorter", [8, 1, 0])
def test_a_window_shorter_than_the_prompts_is_kept_to(family, shorter):
    longest = max(len(pair.input_ids) for pair in encoded())
    model = build(family, sliding_window=longest - shorter)
    assert reads_trees(model) == (shorter == 0)
    assert_agrees(score_pairs(model, TOKENIZER, PROMPTS, TARGETS), slowly(model))


@pytest.mark.parametrize(
    ("family", "window"), [("gpt_neo", {"window_size": 32}), ("llama4_text", {"attention_chunk_size": 16})]
)
def test_windows_by_any_other_name_are_kept_to(family, window):
    model = build(family, **window)
    prompts = [*(f"The capital of {name} is" for name in "ABCDEFGHIJ"), "The capital of Peru and all of the rest is"]
    targets = ["Astana"] * len(prompts)
    assert trie_size(encoded(prompts, targets)) > 32
    scores = score_pairs(model, TOKENIZER, prompts, targets)
    assert_agrees(scores, slowly(model, TOKENIZER, prompts, targets))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_lora_is_scored_and_its_base_without_it(family):
    base = build(family)
    before = score_pairs(base, TOKENIZER, PROMPTS, TARGETS)
    model = moved(base)
    assert reads_trees(model)
    scores = score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    assert_agrees(scores, slowly(model))
    assert np.abs(scores.logprob - before.logprob).min() > 1e-3
    with model.disable_adapter():
        again = score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    np.testing.assert_allclose(again.logprob, before.logprob, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_prompt_tuning_is_scored_behind_its_virtual_tokens(family):
    model = get_peft_model(build(family), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    torch.nn.init.normal_(model.prompt_encoder.default.embedding.weight)
    assert not reads_trees(model)
    scores, expected = score_pairs(model, TOKENIZER, PROMPTS, TARGETS), []
    for ids, start in encoded():
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, 3:].double()
        read, ids = torch.log_softmax(logits[start - 1 : -1], dim=-1), torch.tensor(ids[start:])
        expected.append(read.gather(1, ids[:, None]).mean().item())
    np.testing.assert_allclose(scores.logprob, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_other_precisions_give_about_the_same(family, dtype, atol):
    expected = score_pairs(build(family), TOKENIZER, PROMPTS, TARGETS)
    model = build(family).to(dtype)
    assert reads_trees(model) == (family != "bloom")
    found = score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    assert found.logprob.dtype == np.float64
    np.testing.assert_allclose(found.logprob, expected.logprob, rtol=0, atol=atol)


def passes(model):
    """The tokens of each forward pass from here on, a list that fills."""
    seen = []
    model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs["input_ids"]), with_kwargs=True)
    return seen


def test_what_prompts_share_is_computed_once():
    model = build("gpt2")
    seen = passes(model)
    score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    *_, batch = seen
    assert len(seen) == 3  # the first two ask whether the model reads trees
    assert batch.numel() == trie_size(encoded()) < sum(len(ids) - 1 for ids, _ in encoded())


def test_a_model_is_tried_once():
    model = build("gpt2")
    seen = passes(model)
    assert all(reads_trees(model) for _ in range(2)) and len(seen) == 2
    longer = [f"{PROMPTS[5]} {PROMPTS[5]}"], TARGETS[:1]
    assert reads_trees(model, *longer) and len(seen) == 4  # a longer prompt may be beyond a window
    assert reads_trees(model) and reads_trees(model, *longer) and len(seen) == 4
    assert reads_trees(model.to(torch.float64)) and len(seen) == 6


def test_a_model_that_fails_the_test_is_not_tried_again(caplog):
    model = build("bloom")
    seen = passes(model)
    with caplog.at_level(logging.INFO, logger="hf_ftedit.models.tree_support"):
        assert not any(reads_trees(model) for _ in range(2))
    assert len(seen) <= 2
    assert [record.getMessage() for record in caplog.records] == ["BloomForCausalLM does not read token trees"]


def test_memory_that_runs_out_decides_nothing(caplog):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model = build("gpt2")
    hook = model.register_forward_pre_hook(fail)
    assert not reads_trees(model) and "out of memory" in caplog.text
    hook.remove()
    assert reads_trees(model)


def test_an_adapter_and_its_base_are_tried_apart():
    model = moved(build("llama"))
    seen = passes(model.get_base_model())
    for _ in range(2):
        assert reads_trees(model)
        with model.disable_adapter():
            assert reads_trees(model)
    assert len(seen) == 4


def test_a_model_that_reads_no_trees_gets_each_pair_in_a_row():
    model = build("bloom")
    seen = passes(model)
    score_pairs(model, TOKENIZER, PROMPTS, TARGETS, tokens_per_batch=40)
    rows = [batch for batch in seen[1:] if batch.shape != seen[0].shape]
    assert sum(map(len, rows)) == len(PROMPTS)
    assert all(batch.numel() <= 40 for batch in rows)


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
def test_only_what_is_read_reaches_the_head(family):
    model, shapes = build(family), []
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape)))
    score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    read = {tuple(ids[:place]) for ids, start in encoded() for place in range(start, len(ids))}
    assert shapes[-1] == (1, len(read), len(TOKENIZER))


def test_a_given_bar_goes_on_and_stays_open():
    with tqdm(total=20, initial=3, file=io.StringIO()) as bar:
        score_pairs(build("gpt2"), TOKENIZER, PROMPTS, TARGETS, bar=bar)
        assert bar.n == 3 + len(PROMPTS)
        bar.update()


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_a_pair_that_stands_twice_has_its_score_twice(family):
    scores = score_pairs(build(family), TOKENIZER, [*PROMPTS, PROMPTS[1]], [*TARGETS, TARGETS[1]])
    assert scores.logprob[1] == pytest.approx(scores.logprob[-1], abs=1e-6)
    assert_agrees(scores, [*slowly(build(family)), slowly(build(family))[1]])


def test_no_pairs_ask_nothing():
    model = build("gpt2")
    seen = passes(model)
    assert [column.shape for column in score_pairs(model, TOKENIZER, [], [])] == [(0,)] * 3
    assert not seen


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_a_model_in_training_is_measured_without_dropout_and_trains_on(family):
    model = build(family, **({"hidden_dropout": 0.5} if family == "bloom" else {}))
    expected = score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    found = score_pairs(model.train(), TOKENIZER, PROMPTS, TARGETS)
    np.testing.assert_array_equal(found.logprob, expected.logprob)
    assert all(module.training for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


def test_an_interrupted_model_is_as_it_was():
    def interrupt(*args):
        raise KeyboardInterrupt

    model = build("gpt2").train()
    model.get_output_embeddings().register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(model, TOKENIZER, PROMPTS, TARGETS)
    assert model.training and torch.is_grad_enabled()
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_the_pair_that_is_too_long_is_named():
    with pytest.raises(EditError, match="edit 'b': prompt and target have .* tokens, at most 256 fit"):
        score_pairs(build("gpt2"), TOKENIZER, ["Oslo", "very " * 300 + "far"], ["is", "is"], names=["a", "edit 'b'"])
