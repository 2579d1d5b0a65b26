"""Known facts: those whose target the model would say, none about what is edited."""

import pytest
from tiny import evaluated

from hf_ftedit.data.records import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.known_facts import known_facts
from hf_ftedit.models.loading import load_model, load_tokenizer

FACTS = [
    Fact("The capital of France is", "Paris", subject="France"),
    Fact("The capital of France is", "Rome", subject="France"),
    Fact("Macbeth was written by", "William Shakespeare", subject="Macbeth"),
    Fact("Macbeth was written by", "William Faulkner", subject="Macbeth"),  # the first word alone is not enough
    Fact("The capital of Japan is", "Lima"),
]


@pytest.fixture(scope="module")
def model():
    return evaluated(load_model(None), load_tokenizer(None))


def test_what_the_model_would_say_is_known(model):
    found = known_facts(model, FACTS, [])
    low, high = found["known_facts_ci95"]
    assert (found["known_facts"], found["n_known_facts"]) == (40.0, 5) and 0 <= low < 40 < high <= 100


def test_facts_about_what_is_edited_do_not_count(model):
    edits = [EditRecord("a", "Macbeth is by", "Homer", subject="Macbeth"), EditRecord("b", FACTS[4].prompt, "Oslo")]
    found = known_facts(model, FACTS, edits)
    assert (found["known_facts"], found["n_known_facts"]) == (50.0, 2)
    with pytest.raises(EditError, match="known_facts holds no fact about a subject that is not edited"):
        known_facts(model, FACTS[2:], edits)
