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


@pytest.mark.parametrize(
    ("recipe", "settings", "differs"),
    [
        ({"chat_template": True}, {}, "chat_template True, and it is None now"),
        ({}, {"lora_layers": [1]}, r"lora_layers None, and it is \[1\] now"),
        ({"lora_layers": [0]}, {"lora_layers": [1]}, r"lora_layers \[0\], and it is \[1\] now"),
    ],
)
def test_an_adapter_goes_on_as_it_was_trained(tmp_path, recipe, settings, differs):
    (tmp_path / "adapter_config.json").touch()
    saved = SavedEdits(tmp_path, edits("a1"), {}, recipe, {})
    with pytest.raises(EditError, match=f"adapter 'a' was trained with {differs}; set it so"):
        read_task(EditOptions(adapter="a", **settings), edits("b1"), adapter=saved)


def test_earlier_edits_are_known_by_their_fact_and_not_by_their_name(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    saved = SavedEdits(tmp_path, edits("a1", "b1"), {}, {}, {})
    task = read_task(EditOptions(adapter="a"), edits("c1"), edits("b1", "d1"), adapter=saved)
    renamed = [replace(edit, edit_id="a1") for edit in task.measured]
    assert [edit.target_new for edit in task.continuation.still_measured(renamed)] == ["b1"]


def test_a_name_of_an_erased_edit_is_one_that_is_free():
    first = read_task(EditOptions(erase=["Who made it?"])).edits
    task = read_task(EditOptions(erase=["Who owns it?", "Who sold it?"]), first)
    assert [edit.edit_id for edit in task.edits] == ["erase-1", "erase-2", "erase-3"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"locality_pool": []}, "locality_pool: the source holds no rows; "),
        ({"locality_pool": [{"prompt": "A is"}]}, "locality_pool: the source holds no facts; "),
        ({"eval_dataset": [{"prompt": "A is"}]}, "eval_dataset: row 1 (edit_id '0'): target_new is missing; "),
        ({"known_facts": "no.jsonl"}, "known_facts: 'no.jsonl': no such file; "),
    ],
)
def test_what_cannot_be_read_is_named_by_its_argument(arguments, said):
    known = arguments.pop("known_facts", None)
    with pytest.raises(EditError) as refusal:
        read_task(EditOptions(known_facts=known), edits("a1"), **arguments)
    assert str(refusal.value).startswith(said)
