"""The edits of an adapter that training goes on from, with new ones."""

from dataclasses import replace

import pytest

from hf_ftedit.data import EditRecord, read_edits
from hf_ftedit.errors import EditError
from hf_ftedit.hub import SavedEdits
from hf_ftedit.options import EditOptions
from hf_ftedit.training.task import _stated, _without_replaced, read_task


def edits(*targets):
    return read_edits([{"edit_id": name, "prompt": f"{name[0]} is in", "target_new": name} for name in targets])


def test_a_new_edit_replaces_an_earlier_one_of_its_fact(monkeypatch, caplog):
    earlier, new = edits("a1", "b1", "c1"), edits("a2", "c1", "d1")

    def compared(*both):
        pytest.fail("edits are compared each with each: with many of them that takes minutes")

    monkeypatch.setattr(EditRecord, "__eq__", compared)
    assert [edit.target_new for edit in _without_replaced(earlier, _stated(new))] == ["b1", "c1"]
    assert caplog.messages == ["new edits of the same fact replace 1 earlier edit: 'a1'"]


def test_a_fact_is_the_same_in_other_words():
    of_peru = {"subject": "Peru", "relation_id": "P36"}
    earlier = [EditRecord("a", "The capital of Peru is", "Cusco", **of_peru), EditRecord("b", "A is in", "B")]
    new = [EditRecord("c", "Peru is governed from", "Lima", **of_peru), EditRecord("d", "a is  in", "C")]
    assert not _without_replaced(earlier, _stated(new))
    both = _stated([replace(new[0], target_new="Cusco"), new[0]])
    assert _without_replaced(earlier, both) == earlier


def test_a_revoked_edit_whose_fact_is_stated_anew_is_not_restored(tmp_path, caplog):
    (tmp_path / "adapter_config.json").touch()
    of_peru = {"subject": "Peru", "relation_id": "P36"}
    own = [*edits("a1", "b1"), EditRecord("c1", "The capital of Peru is", "Cusco", **of_peru)]
    saved = SavedEdits(tmp_path, own, {}, {}, {})
    options = EditOptions(adapter="a", revoke=["a1", "b1", "c1"])
    new = [EditRecord("a2", "A  is in", "a2"), EditRecord("c2", "Peru is governed from", "Lima", **of_peru)]
    task = read_task(options, new, adapter=saved)
    assert [edit.edit_id for edit in task.edits] == ["a2", "c2"]
    assert [edit.edit_id for edit in task.revoked] == ["b1"] and task.continuation.is_anew
    assert caplog.messages == ["new edits of the same fact replace 2 revoked edits"]
    task = read_task(EditOptions(adapter="a", revoke=["a1"]), new[:1], adapter=saved)
    assert not task.revoked and task.continuation.is_anew  # the weights still hold what is replaced


@pytest.mark.parametrize("own, some", [("a1 b1", "'a1', 'b1'"), ("a1 b1 c1 d1", "'a1', 'b1', 'c1', ...")])
def test_an_edit_to_revoke_that_is_not_there_is_named_with_those_that_are(tmp_path, own, some):
    (tmp_path / "adapter_config.json").touch()
    saved = SavedEdits(tmp_path, edits(*own.split()), {}, {}, {})
    with pytest.raises(EditError) as refusal:
        read_task(EditOptions(adapter="a", revoke=["e1"]), adapter=saved)
    assert str(refusal.value).endswith(f" has no edit 'e1' to revoke; it has {some}")
