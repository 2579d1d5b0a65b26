"""References against whole distributions, one pair at a time."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from test_likelihood import TOKENIZER, build, encoded, passes
from tiny import moved

from hf_ftedit.models import REFERENCE_COLUMNS, divergences, pair_divergences, reference_distributions, with_references

PAIRS = encoded()


@torch.no_grad()
def distributions(model, pair):
    """Log-probabilities of the whole vocabulary at the pair's target positions, `(targets, vocabulary)`."""
    logits = model(torch.tensor([pair.input_ids])).logits[0, pair.start - 1 : -1]
    return logits.log_softmax(dim=-1).numpy()


@pytest.mark.parametrize(("family", "budget"), [("gpt2", 1), ("llama", 40), ("llama", 2048), ("bloom", 40)])
def test_the_likeliest_tokens_and_the_rest(family, budget):
    model = build(family)
    references = reference_distributions(model, PAIRS, k=5, tokens_per_batch=budget)
    for pair, (tokens, logprobs, rest) in zip(PAIRS, references, strict=True):
        whole = distributions(model, pair)
        order = np.argsort(-whole, axis=1)
        assert tokens.dtype == np.int32 and logprobs.dtype == rest.dtype == np.float16
        assert tokens.tolist() == order[:, :5].tolist()
        np.testing.assert_allclose(logprobs, np.take_along_axis(whole, tokens, axis=1), rtol=1e-3, atol=1e-4)
        others = np.log(1 - np.exp(np.take_along_axis(whole, tokens, axis=1)).sum(axis=1))
        np.testing.assert_allclose(rest, others, rtol=1e-3, atol=1e-4)


def test_a_small_vocabulary_is_kept_whole():
    model = build("gpt2")
    (tokens, logprobs, rest), *_ = reference_distributions(model, PAIRS, k=10**6)
    assert tokens.shape == logprobs.shape == (len(tokens), len(TOKENIZER)) and (rest < -1000).all()


@pytest.mark.parametrize("k", [3, 10**6])
def test_divergence_from_a_reference_by_hand_and_its_gradient(k):
    torch.manual_seed(0)
    model = build("llama")
    tokens, logprobs, rest = map(torch.from_numpy, reference_distributions(model, PAIRS, k=k)[0])
    logits = torch.randn(len(tokens), len(TOKENIZER), requires_grad=True)
    p = torch.cat([logprobs, rest[:, None]], 1).double().softmax(1)
    q = logits.double().softmax(1).gather(1, tokens.long())
    q = torch.cat([q, 1 - q.sum(1, keepdim=True)], 1)
    expected = (p * (p.clamp(min=1e-30) / q.clamp(min=1e-30)).log()).sum(1)
    actual = divergences(logits, tokens, logprobs, rest)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)
    (wanted,) = torch.autograd.grad(expected.sum(), logits, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(actual.sum(), logits)[0], wanted, rtol=1e-3, atol=1e-5)


def test_a_model_diverges_from_itself_by_nothing():
    model = build("gpt2")
    for pair, reference in zip(PAIRS, reference_distributions(model, PAIRS), strict=True):
        own = divergences(torch.from_numpy(distributions(model, pair)), *map(torch.from_numpy, reference))
        assert 0 <= own.min() and own.max() < 1e-5


@pytest.mark.parametrize(("family", "budget"), [("gpt2", 1), ("llama", 40), ("llama", 2048), ("bloom", 40)])
def test_divergences_of_pairs_are_those_of_whole_distributions(family, budget):
    model = build(family)
    references = reference_distributions(model, PAIRS, k=10**6)
    before = [distributions(model, pair) for pair in PAIRS]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.3)
    found = pair_divergences(model, list(zip(PAIRS, references, strict=True)), tokens_per_batch=budget)
    for pair, old, values in zip(PAIRS, before, found, strict=True):
        expected = (np.exp(old) * (old - distributions(model, pair))).sum(axis=1)
        np.testing.assert_allclose(values, expected, rtol=1e-2, atol=1e-4)
    assert max(map(max, found)) > 0.01


KINDS = ["rewrite", "locality", "contrast", "paraphrase", "locality", "rewrite", "locality"]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    columns = {"input_ids": [pair.input_ids for pair in PAIRS], "labels": [pair.labels for pair in PAIRS]}
    return datasets.Dataset.from_dict(columns | {"kind": KINDS})


def test_rows_that_stay_get_references(rows):
    model = build("gpt2")
    referred = with_references(rows, model, k=5)
    assert referred.remove_columns(REFERENCE_COLUMNS).to_dict() == rows.to_dict()
    expected = reference_distributions(model, PAIRS, k=5)
    for kind, reference, *found in zip(KINDS, expected, *(referred[name] for name in REFERENCE_COLUMNS), strict=True):
        wanted = [part.ravel().tolist() for part in reference] if kind in ("locality", "contrast") else [[], [], []]
        assert found[0] == wanted[0]
        assert [np.float16(part).tolist() for part in found[1:]] == wanted[1:]
    types = [referred.features[name].feature.dtype for name in REFERENCE_COLUMNS]
    assert types == ["int32", "float16", "float16"]


def test_references_are_the_unedited_models(rows, tmp_path, monkeypatch):
    expected = with_references(rows, build("gpt2"), k=5).to_dict()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "other"))
    edited = moved(build("gpt2"))
    assert with_references(rows, edited, k=5).to_dict() == expected
    found = reference_distributions(edited, PAIRS, k=5)
    assert found[1].tokens.ravel().tolist() != expected["ref_tokens"][1]  # the adapter says something else


def test_references_are_computed_once_for_the_same_rows_model_and_number(rows):
    model = build("gpt2")
    runs = passes(model)
    first = with_references(rows, model, k=5)
    count = len(runs)
    assert count and with_references(rows, model, k=5).to_dict() == first.to_dict() and len(runs) == count
    with_references(rows, model, k=6)
    assert len(runs) > count
    other = build("gpt2")
    with torch.no_grad():
        other.get_input_embeddings().weight *= 2
    assert with_references(rows, other, k=5).to_dict() != first.to_dict()


WITHOUT_FINGERPRINT = """
import torch
from test_references import PAIRS, build, datasets, with_references

model = build("gpt2")
model.register_parameter("packed", torch.nn.Parameter(torch.ones(2, dtype=torch.uint8), requires_grad=False))
columns = {"input_ids": [PAIRS[0].input_ids], "labels": [PAIRS[0].labels], "kind": ["locality"]}
rows = with_references(datasets.Dataset.from_dict(columns), model, k=5)
assert rows["ref_rest"][0] and rows.cache_files
"""


def test_references_that_no_other_run_can_use_go_with_their_run(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "HF_DATASETS_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WITHOUT_FINGERPRINT], env=env, check=True, timeout=600)
    assert (tmp_path / "hf_ftedit").is_dir() and not [*tmp_path.rglob("*.arrow")]
