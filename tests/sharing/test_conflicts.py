"""Edits of different adapters that contradict each other: found in other words too, and decided for one adapter."""

import pytest

from hf_ftedit.data.records import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.sharing.conflicts import conflicts, decided

PARTS = {
    "a": [EditRecord("1", "The capital of Peru is", "Cusco"), EditRecord("2", "Emma is by", "Jonathan Swift")],
    "b": [EditRecord("1", "Emma is by", "Virginia Woolf"), EditRecord("2", "The capital of Chad is", "Abeche")],
    "c": [EditRecord("1", "The capital of Chad is", "Moundou")],
}


def test_the_same_subject_and_relation_conflict_in_other_words():
    first = EditRecord("1", "The capital of Peru is", "Cusco", subject="Peru", relation_id="capital")
    second = EditRecord("2", "Peru is governed from", "Arequipa", subject="peru", relation_id="capital")
    same = EditRecord("3", "the capital of  Peru is", "cusco")
    assert [str(found) for found in conflicts({"a": [first], "b": [second, same]})] == [
        "'The capital of Peru is' is 'Cusco' in a (1) and 'Arequipa' in b (2)"
    ]


def test_edits_that_agree_or_stand_in_one_adapter_do_not_conflict():
    first, other = EditRecord("1", "Emma is by", "Swift"), EditRecord("2", "Emma is by", "Woolf")
    assert not conflicts({"a": [first, other]}) and not conflicts({"a": [first], "b": [first]})


def test_the_preferred_adapter_wins():
    parts = {name: PARTS[name] for name in ("a", "b")}
    found = conflicts(parts)
    assert decided(parts, found, "a") == {"a": PARTS["a"], "b": PARTS["b"][1:]}
    assert decided(parts, found, "b") == {"a": PARTS["a"][:1], "b": PARTS["b"]}


@pytest.mark.parametrize(
    ("preferred", "named", "more"),
    [
        (None, "'Emma is by' is 'Jonathan Swift' in a (2) and 'Virginia Woolf' in b (1)", " (1 more such conflicts)"),
        ("a", "'The capital of Chad is' is 'Abeche' in b (2) and 'Moundou' in c (1)", ""),
    ],
)
def test_conflicts_of_other_adapters_stay_open(preferred, named, more):
    with pytest.raises(EditError) as caught:
        decided(PARTS, conflicts(PARTS), preferred)
    assert str(caught.value) == f"edits conflict: {named}{more}; give --prefer with the adapter whose edits win"
