"""The model and the tokenizer of most tests of training."""

import pytest
from tiny import sentencepiece_tokenizer, tiny_model
from tiny_edits import outspoken


@pytest.fixture(autouse=True, scope="module")
def quick(few_drift_prompts):
    """Drift is measured by few prompts."""


@pytest.fixture(autouse=True)
def apart(own_cache):
    """No test finds the rows of another."""


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece_tokenizer()


@pytest.fixture(scope="module")
def base(tokenizer):
    """A Llama without dropout; each test edits a copy."""
    return outspoken(tiny_model("llama", tokenizer).eval())
