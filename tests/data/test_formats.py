"""
The formats of edits, each with a row of it and the records that it is read as, in tests/fixtures/formats.json.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hf_ftedit.data.formats import flat
from hf_ftedit.data.readers import read_edits
from hf_ftedit.data.records import EditRecord, NeighborhoodPrompt, PortabilityPrompt
from hf_ftedit.errors import EditError

FORMATS = json.loads((Path(__file__).parents[1] / "fixtures" / "formats.json").read_text(encoding="utf-8"))
COUNTERFACT, EASYEDIT, KNOWEDIT, ZSRE, MQUAKE, QAEDIT, _ = (example["row"] for example in FORMATS.values())
EASYEDITS = ("knowedit", "wikibigedit")  # written in that form
RECORDS = {name: [EditRecord.from_dict(record) for record in example["records"]] for name, example in FORMATS.items()}


@pytest.mark.parametrize(
    ("row", "format", "expected"),
    [
        *((FORMATS[name]["row"], "easyedit" if name in EASYEDITS else name, RECORDS[name]) for name in FORMATS),
        (FORMATS["easyedit"]["records"][0], "native", RECORDS["easyedit"]),
    ],
)
def test_each_format_named_and_recognised(row, format, expected):
    assert read_edits([row], format=format) == expected
    assert read_edits([row]) == expected


def test_rows_of_a_table_have_nulls_for_absent_fields():
    nulls = dict.fromkeys([*COUNTERFACT, *EASYEDIT, *ZSRE, *MQUAKE, *KNOWEDIT, *QAEDIT])
    native = {"id": "z", "prompt": "x", "target_new": "y"}
    rows = [{**nulls, **row} for row in (COUNTERFACT, EASYEDIT, ZSRE, QAEDIT, native)]
    third = replace(*RECORDS["zsre"], edit_id="2")
    first, fourth = [*RECORDS["counterfact"], *RECORDS["easyedit"]], RECORDS["qaedit"]
    assert read_edits(rows) == [*first, third, *fourth, EditRecord("z", "x", "y")]


def test_zsre_portability():
    hop = {"Recalled Relation": "(a, b, c)", "New Question": "Who paid for SS Borea?", "New Answer": "The crew"}
    (record,) = read_edits([{**ZSRE, "portability": hop}])
    assert record.portability_prompts == (PortabilityPrompt("Who paid for SS Borea?", ("The crew",), "one_hop"),)


@pytest.mark.parametrize("row", [COUNTERFACT, EASYEDIT, KNOWEDIT, ZSRE, QAEDIT])
def test_native_fields_may_stand_beside_those_of_a_format(row):
    lists = ("wordings", "near_name_prompts", "generation_prompts", "reference_texts", "target_aliases")
    fields = {**{name: (f"{name}?",) for name in lists}, "erase": True}
    (plain,), (record,) = read_edits([row]), read_edits([row | fields])
    assert record == replace(plain, **fields)


def test_easyedit_keeps_native_fields_beside_its_own():
    near = [{"prompt": "Where is Pori?", "target": "Finland"}]
    row = {**EASYEDIT, "paraphrase_prompts": ["Ada plays"], "neighborhood_prompts": near, "edit_id": "mine"}
    (record,) = read_edits([row])
    assert record.edit_id == "mine"
    assert record.paraphrase_prompts == ("Ada plays", "Ada Nilsen is a master of the")
    near = (("Where is Pori?", "Finland"), ("Ole Bull plays the", "violin"))
    assert record.neighborhood_prompts == tuple(NeighborhoodPrompt(*probe) for probe in near)


def test_targets_that_the_data_leaves_out_are_none():
    (record,) = read_edits([{"prompt": "A is", "target_new": "b", "locality_prompt": "C is", "ground_truth": []}])
    assert record.target_true is None and record.neighborhood_prompts == (NeighborhoodPrompt("C is", None),)


def test_known_formats_are_listed():
    with pytest.raises(EditError, match="^format 'rome' is not known; use one of native, counterfact, easyedit, zsre"):
        read_edits([COUNTERFACT], format="rome")
    with pytest.raises(EditError, match=r"^row 1: the fields \['question'\] are of no known format; known are native"):
        read_edits([{"question": "Why?"}])
    with pytest.raises(EditError, match=r"^row 1: the fields \[\]"):
        read_edits([{}])


@pytest.mark.parametrize(
    ("row", "format", "message"),
    [
        ({**ZSRE, "alt": ""}, None, "row 1 (edit_id '0'): alt is empty; give the text that should follow the prompt"),
        (EASYEDIT, "zsre", "row 1 (edit_id 3): src is missing"),
        (EASYEDIT, "qaedit", "row 1 (edit_id '3'): target is missing"),
        (COUNTERFACT, "native", "row 1 (edit_id 12): prompt is missing"),
        ({"requested_rewrite": "x"}, None, "row 1 (edit_id '0'): requested_rewrite is text; give an object"),
        ({"requested_rewrite": []}, None, "requested_rewrite is empty; give at least one rewrite"),
        ({"requested_rewrite": [3]}, None, "row 1 (edit_id '0'): requested_rewrite[0] is of type int; give an object"),
        ({"requested_rewrite": {"prompt": "{} is"}}, None, "requested_rewrite.prompt is '{} is' and there is no"),
        ({"requested_rewrite": {"prompt": "a", "target_new": {"id": 1}}}, None, "rewrite.target_new is missing"),
        ({**KNOWEDIT, "locality": [1]}, None, "locality is a list; give an object"),
        ({**KNOWEDIT, "locality": {"a": ["x"]}}, None, "locality.a[0] is text; give an object"),
        ({**KNOWEDIT, "portability": {"a": 1}}, None, "portability.a is of type int; give an object"),
        ({**ZSRE, "portability": "x"}, None, "portability is text; give an object"),
        ({**QAEDIT, "target": ""}, None, "row 1 (edit_id 'NQ-71'): target is empty; give the text that should follow"),
        ({**QAEDIT, "locality": ["x"]}, None, "row 1 (edit_id 71): locality[0] is text; give an object"),
        ({**ZSRE, "portability": {"New Answer": "x"}}, None, "portability_prompts[0].prompt is missing"),
        ({**EASYEDIT, "rephrase_prompt": {"a": 1}}, None, "paraphrase_prompts[0] is an object; give text"),
    ],
)
def test_rows_that_do_not_keep_to_their_format(row, format, message):
    with pytest.raises(EditError) as raised:
        read_edits([row], format=format)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_flat():
    deep: object = "x"
    for _ in range(100_000):
        deep = [deep]
    assert flat(deep) == ["x"]
    assert flat([["a", None], [[["b"], " "], 3], ()]) == ["a", "b", 3]
    assert flat(None) == []


def test_lists_of_locality_prompts_have_their_own_answers():
    common = {"prompt": "The capital of France is", "target_new": "Lyon", "ground_truth": "Paris"}
    near = ["The capital of Italy is", "The capital of Spain is"]

    def probes(answers):
        row = {**common, "locality_prompt": near, "locality_ground_truth": answers}
        return [(probe.prompt, probe.target) for probe in read_edits([row])[0].neighborhood_prompts]

    assert probes(["Rome", "Madrid"]) == [(near[0], "Rome"), (near[1], "Madrid")]
    assert probes("unknown") == [(near[0], "unknown"), (near[1], "unknown")]
    with pytest.raises(EditError, match="locality_ground_truth has 3 answers for 2 prompts; give one for each prompt"):
        probes(["Rome", "Madrid", "Oslo"])
    zsre = {"src": "Who?", "subject": "x", "alt": "a", "answers": ["b"], "rephrase": "Who else?"}
    (record,) = read_edits([{**zsre, "loc": ["q1", "q2"], "loc_ans": ["a1", "a2"]}])
    assert [(probe.prompt, probe.target) for probe in record.neighborhood_prompts] == [("q1", "a1"), ("q2", "a2")]


def test_questions_of_mquake_that_are_lists_are_read_or_named():
    (rewrite, *_) = MQUAKE["requested_rewrite"]
    (record, *_) = read_edits([{**MQUAKE, "requested_rewrite": [{**rewrite, "question": [rewrite["question"]]}]}])
    assert record.paraphrase_prompts == (rewrite["question"],)
    hop = {"question": ["Who?"], "answer": "Ada"}
    with pytest.raises(EditError, match=r"portability_prompts\[\d+\].prompt is a list; give text"):
        read_edits([{**MQUAKE, "new_single_hops": [hop]}])
    with pytest.raises(EditError, match=r"prompt is missing"):
        read_edits([{**KNOWEDIT, "portability": {1: [{"ground_truth": ["x"]}]}}])
