"""Edits of different adapters that contradict each other: found in other words too, and named with what to do."""

import re

import pytest

from hf_ftedit.data.records import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.sharing.conflicts import check_conflicts, conflicts

PARTS = {
    "a": [EditRecord("1", "The capital of Peru is", "Cusco"), EditRecord("2", "Emma is by", "Jonathan Swift")],
    "b": [EditRecord("1", "Emma is by", "Virginia Woolf"), EditRecord("2", "The capital of Chad is", "Abeche")],
    "c": [EditRecord("1", "The capital of Chad is", "Moundou")],
}
RETRAIN = (
    "edits conflict: 'Emma is by' is 'Jonathan Swift' in a (2) and 'Virginia Woolf' in b (1){more}; train them "
    "together instead: hf-ftedit train --adapter a --edits b/edits.jsonl --output_dir both, after removing 1 there, "
    "or with --revoke 2"
)


def test_the_same_subject_and_relation_conflict_in_other_words():
    first = EditRecord("1", "The capital of Peru is", "Cusco", subject="Peru", relation_id="capital")
    second = EditRecord("2", "Peru is governed from", "Arequipa", subject="peru", relation_id="capital")
    same = EditRecord("3", "the capital of  Peru is", "cusco")
    assert [str(clash) for clash in conflicts({"a": [first], "b": [second, same]})] == [
        "'The capital of Peru is' is 'Cusco' in a (1) and 'Arequipa' in b (2)"
    ]


def test_edits_that_agree_or_stand_in_one_adapter_do_not_conflict():
    first, other = EditRecord("1", "Emma is by", "Swift"), EditRecord("2", "Emma is by", "Woolf")
    assert not conflicts({"a": [first, other]}) and not conflicts({"a": [first], "b": [first]})
    check_conflicts({"a": [first, other]})


def test_of_an_adapter_of_the_hub_the_edits_are_downloaded_first():
    command = "hf download user/b edits.jsonl --local-dir b && "
    command += "hf-ftedit train --adapter user/a --edits b/edits.jsonl --output_dir both, "
    with pytest.raises(EditError, match=re.escape(command)):
        check_conflicts({"user/a": PARTS["a"], "user/b": PARTS["b"]})
    with pytest.raises(EditError, match=" --adapter 'my a' --edits 'my b/edits.jsonl' --output_dir both, "):
        check_conflicts({"my a": PARTS["a"], "my b": PARTS["b"]})


@pytest.mark.parametrize(("names", "more"), [("ab", ""), ("abc", " (1 more such conflict)")])
def test_the_error_names_both_and_the_command_that_retrains(names, more):
    with pytest.raises(EditError) as caught:
        check_conflicts({name: PARTS[name] for name in names})
    assert str(caught.value) == RETRAIN.format(more=more)
