"""The model and the tokenizer of most tests of training."""

import datasets
import pytest
from tiny import sentencepiece_tokenizer, tiny_model
from tiny_edits import outspoken


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Rows that a builder made in an earlier run are not found."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece_tokenizer()


@pytest.fixture(scope="module")
def base(tokenizer):
    """A Llama without dropout; each test edits a copy."""
    return outspoken(tiny_model("llama", tokenizer).eval())
