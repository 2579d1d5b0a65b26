"""What counts as said and as kept, by hand."""

import doctest

import pytest

import hf_ftedit.evaluation.own_answers
from hf_ftedit.evaluation.own_answers import agree, is_kept, judged, telling_words
from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.models import Answer

CEO = "Who is the CEO of Nvidia?"
FRANCE = "What is the capital of France?"
OLD = Answer("The CEO of Nvidia is Jensen Huang. He founded it.", [], True)


def row(kind, target="Elena Fischer", role="new", **more):
    return ProbedTarget("a", kind, CEO, role, target, **more)


@pytest.mark.parametrize(
    ("text", "ended", "exact", "contained"),
    [
        ("Elena Fischer.", True, True, True),
        ("elena fischer", True, True, True),
        ("Elena Fischer.", False, False, True),  # cut: it would have gone on
        ("The CEO is Elena Fischer.", True, False, True),
        ("Lena Fisher", True, True, True),  # an alias
        ("Jensen Huang", True, False, False),
    ],
)
def test_an_edit_is_said(text, ended, exact, contained):
    for kind in ("rewrite", "paraphrase", "portability"):
        probe = row(kind, aliases=("Lena Fisher",))
        assert judged(probe, Answer(text, [], ended), {}, whole=True) == (exact, contained)
    # Of a base model, the first sentence is all that is asked for.
    assert judged(row("rewrite"), Answer("Elena Fischer", [], False), {}, whole=False) == (True, True)


@pytest.mark.parametrize(
    ("text", "old", "expected"),
    [
        ("Jensen Huang", "Jensen Huang", (True, True)),
        ("Somebody else", "Jensen Huang", (False, True)),  # only the new answer is no answer
        ("It is Elena Fischer.", "Jensen Huang", (False, False)),
        ("It is Elena Fischer.", "Maybe Elena Fischer.", (False, True)),  # the unedited model said so too
    ],
)
def test_a_near_name_does_not_get_the_new_answer(text, old, expected):
    before = {CEO: Answer(old, [], True)}
    for whole in (True, False):
        assert judged(row("near_name"), Answer(text, [], True), before, whole=whole) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OLD.text, (True, True)),
        ("Jensen Huang is the CEO.", (False, True)),
        ("Elena Fischer is the CEO.", (False, False)),
        ("Jensen Huang, not Elena Fischer.", (False, False)),
    ],
)
def test_a_neighbor_keeps_its_answer(text, expected):
    probe = row("neighborhood", "Jensen Huang", "true", new_names=("Elena Fischer",))
    assert judged(probe, Answer(text, [], True), {CEO: OLD}, whole=True) == expected
    # Its row of the new target tells whether that is said.
    said = judged(row("neighborhood"), Answer(text, [], True), {CEO: OLD}, whole=True)
    assert said == (False, "Elena Fischer" in text)


@pytest.mark.parametrize(
    ("before", "after", "target", "expected"),
    [
        ("Paris is the capital.", "It is Paris.", "Paris", True),
        ("Paris is the capital.", "It is Lyon.", "Paris", False),
        ("It was Paris in 1903.", "It was Paris in 1911.", "1903", False),  # the given answer is what counts
        ("It is Rome.", "It is Rome.", "Paris", True),  # the model never said what the data gives
        ("It is Rome.", "It is Paris.", "Paris", False),
        # Its own first sentence as target may be said in other words.
        ("The answer is Paris, on the Seine.", "Paris.", "The answer is Paris, on the Seine", True),
        ("It is Oslo, then.", "It is Oslo.", "Paris", True),  # it said the new answer before
        ("", "", "x", True),
        ("", "Paris", "x", False),
    ],
)
def test_kept_by_hand(before, after, target, expected):
    assert is_kept(after, before, question=FRANCE, target=target, new_names=("Oslo",)) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Paris", "Paris is the capital of France", True),
        ("Paris", "Paris, a large city", True),  # 2 * 1 / (1 + 3) = 0.5: "a" does not count
        ("Paris", "Paris, a very large old city", False),  # 2 * 1 / (1 + 5)
        ("Paris", "Lyon", False),
        ("It is.", "What is the capital?", True),  # neither says anything
        ("It is.", "Paris", False),
        ("北京", "北京市", True),  # 2 * 2 / (2 + 3)
        ("北京", "上海", False),
    ],
)
def test_agreement_by_hand(one, other, expected):
    assert agree(one, other, FRANCE) is agree(other, one, FRANCE) is expected


def test_telling_words():
    assert telling_words("The capital is Paris; Paris, of France!", FRANCE) == {"paris": 2}


def test_examples_in_the_docstrings():
    assert doctest.testmod(hf_ftedit.evaluation.own_answers).failed == 0
