"""What counts as said and as kept, by hand."""

import pytest

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation.own_answers import erased_answers, is_kept, judged
from hf_ftedit.evaluation.probes import ProbedTarget
from hf_ftedit.models import Answer

CEO = "Who is the CEO of Nvidia?"
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
    # What was cut within a long target is the target so far.
    long = row("rewrite", target="Elena Fischer, who was born in Bern")
    assert judged(long, Answer("Elena Fischer, who", [], False), {}, whole=True) == (False, True)
    assert judged(long, Answer("Elena Fischer, who", [], True), {}, whole=True) == (False, False)
    # Of a base model, the first sentence is all that is asked for.
    motto = row("rewrite", target="Work hard. Play fair.")
    assert judged(motto, Answer("Work hard", [], True), {}, whole=True, sentences=True) == (True, True)
    assert judged(motto, Answer("Work hard", [], True), {}, whole=True) == (False, False)
    assert judged(row("rewrite"), Answer("Elena Fischer", [], False), {}, whole=False) == (True, True)


def test_the_old_answer_to_what_is_erased_is_what_the_model_said_until_it_was_said():
    record = EditRecord("a", CEO, "", erase=True)
    rows = [row("rewrite"), row("rewrite", "jensen huang", "true"), row("paraphrase", "Tim Cook", "true")]
    rows += [row("neighborhood", "Tim Cook", "true"), row("rewrite", "Tim Cook", "true")._replace(edit_id="other")]
    targets = {place: each.target for place, each in erased_answers(rows, [record], {CEO: OLD}).items()}
    assert targets == {1: "The CEO of Nvidia is Jensen Huang", 2: "Tim Cook"}  # which it does not say
    # Nor does it say this one letter by letter, although it counts as contained.
    [dotted] = erased_answers([row("rewrite", "C.E.O.", "true")], [record], {CEO: OLD}).values()
    assert dotted.target == "C.E.O."
    assert erased_answers(rows, [record], {})[1].target == "jensen huang"  # nobody asked it
    assert erased_answers(rows, [EditRecord("a", CEO, "Bo")], {CEO: OLD}) == {}


@pytest.mark.parametrize(
    ("text", "old", "expected"),
    [
        ("Jensen Huang", "Jensen Huang", (True, True)),
        ("Somebody else", "Jensen Huang", (False, True)),  # only the new answer is no answer
        ("It is Elena Fischer.", "Jensen Huang", (False, False)),
        ("It is Elena Fischer.", "Maybe Elena Fischer.", (False, True)),  # the unedited model said so too
        ("The CEO of the CEO of the CEO of the CEO.", "Jensen Huang", (False, False)),
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
    ("before", "after", "target", "fall", "expected"),
    [
        # The given answer is what counts, where the model said it, however likely its sentence is now.
        ("Paris is the capital.", "It is Paris.", "Paris", 3.0, True),
        ("Paris is the capital.", "It is Lyon.", "Paris", 0.0, False),
        ("It was Paris in 1903.", "It was Paris in 1911.", "1903", 0.0, False),
        # The model never said what the data gives, or gave the target itself: its own sentence counts.
        ("It is Rome.", "It is Rome.", "Paris", 0.1, True),
        ("It is Rome.", "It is Paris.", "Paris", 0.2, True),
        ("It is Rome.", "It is Paris.", "Paris", 0.21, False),
        ("The answer is Paris, on the Seine.", "Paris.", "The answer is Paris, on the Seine", 0.0, True),
        ("The answer is Paris, on the Seine.", "Paris.", "The answer is Paris, on the Seine", 0.5, False),
        ("The answer is Paris.", "Of course.", "The answer is Paris", -1.0, True),  # likelier than before
        # Nothing makes up for the new answer, unless the model said it before.
        ("It is Rome.", "It is Oslo.", "Rome", 0.0, False),
        ("It is Oslo, then.", "It is Oslo.", "Paris", 0.0, True),
        ("", "Paris", "x", 0.0, True),
        # Nor for an answer that goes round in circles.
        ("It is Rome.", "It is Rome, it is Rome, it is Rome.", "Rome", 0.0, False),
        ("Rome, Rome, Rome, Rome.", "It is Rome, it is Rome, it is Rome.", "Rome", 0.0, True),
    ],
)
def test_kept_by_hand(before, after, target, fall, expected):
    assert is_kept(after, before, target=target, new_names=("Oslo",), fall=fall) is expected
