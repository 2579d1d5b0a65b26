"""The edits of an adapter that training goes on from, with new ones."""

import pytest

from hf_ftedit.data import EditRecord, read_edits
from hf_ftedit.training.task import _without_replaced


def edits(*targets):
    return read_edits([{"edit_id": name, "prompt": f"{name[0]} is in", "target_new": name} for name in targets])


def test_a_new_edit_replaces_an_earlier_one_of_its_prompt(monkeypatch, caplog):
    earlier, new = edits("a1", "b1", "c1"), edits("a2", "c1", "d1")

    def compared(*both):
        pytest.fail("edits are compared each with each: with many of them that takes minutes")

    monkeypatch.setattr(EditRecord, "__eq__", compared)
    assert [edit.target_new for edit in _without_replaced(earlier, new)] == ["b1", "c1"]
    assert caplog.messages == ["1 earlier edits are replaced by new ones of the same prompt: 'a1'"]
