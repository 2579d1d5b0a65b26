import json
import logging

import pandas as pd
import pytest
from test_formats import COUNTERFACT, EASYEDIT, KNOWEDIT, MQUAKE, QAEDIT, ZSRE

from hf_ftedit.data.readers import combine_edits, read_edits, read_facts
from hf_ftedit.data.records import EditRecord, Fact, NeighborhoodPrompt, write_jsonl
from hf_ftedit.errors import EditError

PROBES = ("paraphrase_prompts", "neighborhood_prompts", "portability_prompts", "generation_prompts")


def row(prompt, target, **more):
    return {"prompt": prompt, "target_new": target, **more}


def test_edits_are_named_by_id_or_position():
    rows = [
        row("A is", "x"),
        row("B is", "x", id=7),
        row("C is", "x", case_id="c"),
        row("D is", "x", edit_id=" d ", id=1),
    ]
    assert [record.edit_id for record in read_edits(rows)] == ["0", "7", "c", "d"]


def test_records_are_read_as_rows_are():
    near, asked = (NeighborhoodPrompt("B is", " y"),), ("A, really, is ",)  # no texts between which a boundary lies
    records = [EditRecord("a", "A is ", " x ", paraphrase_prompts=asked, neighborhood_prompts=near)]
    assert read_edits(iter(records)) == [
        EditRecord("a", "A is", "x", paraphrase_prompts=asked, neighborhood_prompts=near)
    ]
    with pytest.raises(EditError, match=r"^row 1 \(edit_id 'a'\): target_new is empty"):
        read_edits([EditRecord("a", "A is", "")])
    with pytest.raises(EditError, match="^row 1: is of type Fact; each row must be an object"):
        read_edits([Fact("A", "b")])


def test_what_is_written_is_read_back(tmp_path):
    records = read_edits([COUNTERFACT, EASYEDIT, KNOWEDIT, MQUAKE, {**ZSRE, "id": "z"}])
    write_jsonl(records, tmp_path / "edits.jsonl")
    assert read_edits(tmp_path / "edits.jsonl") == records and len(records) == 6


def test_duplicates_are_merged_with_the_probes_of_both(caplog):
    rows = [
        row("A is", "x", edit_id="a", paraphrase_prompts=["A?", "A!"], generation_prompts=["g", "g"]),
        row("B is", "x", edit_id="b"),
        row("A is ", "x", edit_id="c", paraphrase_prompts=["A!", "A…"], subject="A", neighborhood_prompts=["N"]),
        row("A is", "x", edit_id="a", subject="not A"),
    ]
    with caplog.at_level(logging.INFO, "hf_ftedit"):
        merged, other = read_edits(rows)
    assert merged == EditRecord(
        "a",
        "A is",
        "x",
        subject="A",
        paraphrase_prompts=("A?", "A!", "A…"),
        neighborhood_prompts=(NeighborhoodPrompt("N"),),
        generation_prompts=("g", "g"),
    )
    assert other.edit_id == "b"
    assert "merged 2 duplicate edits" in caplog.text


def test_a_probe_that_both_duplicates_have_is_merged_with_its_answers():
    probes = [NeighborhoodPrompt("N", "t"), NeighborhoodPrompt("M"), NeighborhoodPrompt("N", None, "a")]
    first, second = (
        EditRecord("a", "A is", "x", neighborhood_prompts=tuple(near)) for near in (probes[:2], probes[2:])
    )
    for both in ([first, second], [second, first]):
        (record,) = read_edits(both)
        assert set(record.neighborhood_prompts) == {NeighborhoodPrompt("N", "t", "a"), NeighborhoodPrompt("M")}


def test_conflicts_are_refused():
    rows = [row("A is", "x", edit_id="a"), row("A is", "y", edit_id="b"), row("A is", "z", edit_id="c")]
    with pytest.raises(EditError) as raised:
        read_edits(rows)
    assert str(raised.value) == (
        "row 2 (edit_id 'b'): target_new gives the prompt 'A is' both 'x' (edit_id 'a', row 1) and 'y'; "
        "keep one answer a prompt, or leave such edits out with --skip_invalid (1 more such conflict)"
    )
    assert read_edits(rows, limit=1) == [EditRecord("a", "A is", "x")]


@pytest.mark.parametrize(
    "second",
    [
        row("a IS", "y"),
        row("A  is ", "y"),
        row("B is", "y", wordings=["A is"]),
        row("C is", "y", wordings=["the a is"]),
        row("D is", "y", wordings=["Co\u0302te is"]),  # two ways to write one letter
        {"edit_id": "2", "prompt": "A is", "erase": True},
    ],
)
def test_one_question_has_one_answer_whatever_its_case_and_blanks(second):
    first = row("A is", "x", edit_id="first", wordings=["The A is", "C\u00f4te is"])
    with pytest.raises(
        EditError, match=r"row 2 \(edit_id .*\): target_new gives the prompt .* both 'x' .*'first', row 1"
    ):
        read_edits([first, second])
    assert len(read_edits([first, {**second, "target_new": "x", "erase": False}])) in (1, 2)


def test_neighbors_of_one_prompt_are_compared_whatever_other_cases_of_it_were_read():
    near = [row("A is", "x", edit_id=name, neighborhood_prompts=[{"prompt": "B is", "target": name}]) for name in "yz"]
    with pytest.raises(
        EditError, match="those of the same edit .*'y', row 2.* give the prompt 'B is' both 'y' and 'z'"
    ):
        read_edits([row("a is", "x", edit_id="w"), *near])


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("paraphrase_prompt", "paraphrase_prompts"),
        ("neighbourhood_prompts", "neighborhood_prompts"),
        ("wording", "wordings"),
        ("Subject", "subject"),
        ("target_tru", "target_true"),
        ("paraphrases", "paraphrase_prompts"),
        ("neighbors", "neighborhood_prompts"),
    ],
)
def test_a_field_that_looks_like_a_slip_is_refused(slip, meant):
    with pytest.raises(EditError, match=f"row 1: {slip} is no field of an edit; did you mean {meant}\\?"):
        read_edits([row("A is", "x", **{slip: "B is"})])
    both = read_edits([row("A is", "x", **{slip: "B is", meant: None})])  # it is somebody's own
    assert both == read_edits([row("A is", "x")])


def test_a_target_by_another_name_is_told():
    with pytest.raises(EditError, match="answer is no field of an edit; did you mean target_new\\?"):
        read_edits([{"prompt": "A is", "answer": "x"}])
    assert read_edits([row("A is", "x", answer="y")])


def test_a_paraphrase_that_is_the_prompt_is_left_out(caplog):
    (edit,) = read_edits([row("A is", "x", paraphrase_prompts=["a  is", "The A is"])])
    assert edit.paraphrase_prompts == ("The A is",)
    assert "not used: paraphrase_prompts (the prompt itself)" in caplog.text


def test_a_subject_elsewhere_is_told(caplog):
    read_edits([row("Oslo is", "x", subject="oslo"), row("Rome is", "x", edit_id="b", subject="Bonn")])
    assert "the subject is not in the prompt in 1 edit, first in edit_id 'b'" in caplog.text


def test_one_id_for_two_edits_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(row(prompt, "x", edit_id="a")) for prompt in ("A is", "B is")))
    with pytest.raises(EditError) as raised:
        read_edits(path)
    assert str(raised.value) == (
        "x.jsonl line 2 (edit_id 'a'): edit_id names two edits, 'A is' (x.jsonl line 1) and 'B is'; rename one of them"
    )


def test_edits_without_names_of_their_own_are_added_time_and_again():
    edits = read_edits([row("0 is", "x"), row("1 is", "x")])
    for number in range(2, 5):
        edits = combine_edits([("earlier", edits), ("new", read_edits([row(f"{number} is", "x"), row("1 is", "x")]))])
    names = {"0": "0 is", "1": "1 is", "new:0": "2 is", "new-2:0": "3 is", "new-3:0": "4 is"}
    assert {edit.edit_id: edit.prompt for edit in edits} == names


def test_unknown_fields_are_noted(caplog):
    read_edits([row("A is", "x", remark="old"), row("B is", "x", source="web")])
    assert "not used: remark, source" in caplog.text


@pytest.mark.parametrize(("prompt", "is_same"), [("who is a", True), ("Who is A.", True), ("Who is A!", False)])
def test_a_prompt_without_its_end_mark_is_the_same(prompt, is_same):
    rows = [row("Who is A?", "x", edit_id="a"), row(prompt, "y", edit_id="b")]
    assert len(read_edits(rows, skip_invalid=True)) == (1 if is_same else 2)


def test_unknown_fields_of_probes_are_noted(caplog):
    near = [{"prompt": "C is", "ground_truth": "d"}, {"prompt": "E is", "answer": "f"}, {"prompt": "G is"}]
    further = [{"prompt": "C is", "answers": ["d"], "kind": "hop"}]
    read_edits([row("A is", "x", neighborhood_prompts=near, portability_prompts=further)])
    names = "neighborhood_prompts.ground_truth, neighborhood_prompts.answer (name it target), portability_prompts.kind"
    assert f"not used: {names}\n" in caplog.text
    caplog.clear()
    read_edits([row("A is", "x", neighborhood_prompts=[{"prompt": "C is", "target": "d", "answer": "d."}, "E is"])])
    assert not caplog.text


def test_the_index_of_a_table_is_no_field(tmp_path, caplog):
    pd.DataFrame([row("A is", "x"), row("B is", "y")]).to_csv(tmp_path / "x.csv")
    assert len(read_edits(tmp_path / "x.csv")) == 2 and not caplog.text


def test_limit():
    rows = [row("A is", "x"), row("A is", "x"), row("B is", "x"), row("C is", "")]
    assert [record.prompt for record in read_edits(rows, limit=2)] == ["A is", "B is"]
    assert [fact.prompt for fact in read_facts([Fact("A", "b"), Fact("C", "d")], limit=1)] == ["A"]
    for read in (read_edits, read_facts):
        with pytest.raises(EditError, match="^limit is 0: give 1 or more"):
            read(rows, limit=0)


def test_facts_by_themselves(caplog):
    rows = [
        {"prompt": "{} is in ", "target": "Peru", "subject": "Lima", "relation_id": "P17"},
        {"prompt": "Nothing is", "target": 0},
        {"known_id": 3, "subject": "Oslo", "attribute": "Norway", "template": "{} lies", "prompt": "Oslo lies in"},
        {"subject": "Pori", "attribute": "Finland", "template": "{} lies in", "prompt": None},
    ]
    assert read_facts(rows) == [
        Fact("Lima is in", "Peru", "Lima", "P17"),
        Fact("Nothing is", "0"),
        Fact("Oslo lies in", "Norway", "Oslo"),
        Fact("Pori lies in", "Finland", "Pori"),
    ]
    given = Fact(" as it is: Lima ", "", None)
    assert read_facts([rows[0], given])[1] == given


def test_facts_of_counterfact():
    assert read_facts([COUNTERFACT]) == [
        Fact("Ada Nilsen was born in", "Bergen", "Ada Nilsen", "P19"),
        Fact("It rained. Ada Nilsen is a native of", "Bergen", "Ada Nilsen", "P19"),
        Fact("Ole Bull was born in", "Bergen", None, "P19"),
        Fact("Edvard Grieg is a native of", "Bergen", None, "P19"),
    ]


def test_braces_in_the_neighborhood_prompts_of_edits_are_the_facts_own():
    near = [{"prompt": "In Go, interface{} is", "target": "any"}, {"prompt": "In Rust, {{}} is", "target": "a brace"}]
    edit = row("{} is in", "Gaul", subject="Rome", target_true="Italy", neighborhood_prompts=near)
    expected = [Fact("Rome is in", "Italy", "Rome"), *(Fact(probe["prompt"], probe["target"]) for probe in near)]
    assert read_facts([edit]) == read_facts(read_edits([edit])) == expected


def test_facts_of_easyedit_and_the_subjects_of_their_neighbors():
    second = {
        **EASYEDIT,
        "subject": "Ole Bull",
        "prompt": "Ole Bull, who plays the",
        "locality_prompt": "Bull plays the",
    }
    facts = read_facts([EASYEDIT, second])
    assert facts[:3] == [
        Fact("Ada Nilsen plays the", "cello", "Ada Nilsen", "P1303"),
        Fact("Ada Nilsen is a master of the", "cello", "Ada Nilsen", "P1303"),
        Fact("Ole Bull plays the", "violin", "Ole Bull", "P1303"),
    ]
    assert facts[5] == Fact("Bull plays the", "violin", None, "P1303")


def test_facts_of_knowedit_zsre_qaedit_and_mquake():
    assert read_facts([KNOWEDIT])[2:] == [
        Fact("Lake Inari's area is", "1040 km2", "Lake Inari"),
        Fact("Lake Inari drains into", "Paatsjoki", "Lake Inari"),
    ]
    assert read_facts([{**ZSRE, "alt": ""}]) == [  # the edit itself does not matter here
        Fact("What year was SS Borea launched?", "1912", "SS Borea"),
        Fact("In what year did SS Borea first sail?", "1912", "SS Borea"),
        Fact("who wrote the tale of two ports", "Nobody"),
    ]
    assert read_facts([QAEDIT]) == [
        Fact("where does lake inari drain", "Paatsjoki"),
        Fact("how long is a fathom", "1.83 m"),
    ]
    assert [(fact.prompt, fact.target) for fact in read_facts([MQUAKE])] == [
        ("Fjord was written by", "Ole Lund"),
        ("Who wrote Fjord?", "Ole Lund"),
        ("Ada Nilsen lives in", "Bergen"),
        ("Where does Ada Nilsen live?", "Bergen"),
    ]


def test_the_longest_known_subject_is_found():
    names = ["York", "New York", "New York City", "St. John's", "AC/DC", "The"]
    rows = [{"prompt": f"{name} x", "target": "y", "subject": name} for name in names]
    prompts = ["In New York City, the", "Newark is not New York", "Yorkshire is", "Is St. John's in", "AC/DC plays"]
    facts = read_facts([*rows, *({"prompt": prompt, "target": "y"} for prompt in prompts)])
    assert [fact.subject for fact in facts[6:]] == ["New York City", "New York", None, "St. John's", "AC/DC"]


def test_a_pool_without_facts_is_refused():
    with pytest.raises(EditError, match="^the source holds no facts; its rows need a target"):
        read_facts([row("A is", "x")])
    with pytest.raises(EditError, match="^row 1: target is missing"):
        read_facts([{"prompt": "A is", "target": None}])


@pytest.mark.parametrize(
    ("name", "edits", "facts"),
    [
        ("counterfact", 502, 6526),
        ("knowedit_zsre", 500, 2000),
        ("mquake_hard", 427, 1600),  # 800 rewrites, of which 373 stand in several cases
        ("zsre_mend_portability", 300, 900),
        ("wild_zsre", 1000, 3000),
        ("wild_wikibigedit", 1000, 1000),
        ("qaedit", 500, 2500),
    ],
)
def test_real_files(shared_dir, name, edits, facts):
    path = shared_dir / "data" / f"{name}.json"
    records = read_edits(path)
    assert len(records) == edits and len(read_facts(path)) == facts
    assert [EditRecord.from_dict(record.to_dict()) for record in records] == records
    are_probed = [any(getattr(record, kind) for kind in PROBES) for record in records]
    assert (all(are_probed) and all(record.template for record in records)) or name == "knowedit_zsre"


def test_real_files_with_unusable_rows(shared_dir):
    data = shared_dir / "data"
    with pytest.raises(EditError, match=r"^zsre_mend.json row 535 \(edit_id '534'\): alt is empty"):
        read_edits(data / "zsre_mend.json")
    assert len(read_edits(data / "zsre_mend.json", limit=500)) == 500
    with pytest.raises(EditError, match=r"'Leeds' .*'251'.*'Louisiana'; .* \(79 more such conflicts\)$"):
        read_edits(data / "counterfact_easyedit.json")
    assert len(read_facts(data / "known_facts.json")) == 1209


def test_subjects_are_found_among_many():
    known = [{"prompt": f"s{i} x", "target": "y", "subject": f"s{i}"} for i in range(20_000)]
    asked = [{"prompt": f"Where is s{i} now? It", "target": "y"} for i in range(20_000)]
    facts = read_facts(known + asked)  # each compared with each would take minutes
    assert facts[-1].subject == "s19999"


def test_unusable_and_contradicting_edits_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"edit_id": "a", "prompt": "Rome is in", "target_new": "Gaul"},
        {"edit_id": "b", "prompt": "Oslo is in", "target_new": " "},
        {"edit_id": "c", "prompt": "Rome is in", "target_new": "Spain"},
        {"edit_id": "d", "prompt": "Bonn is in", "target_new": "Peru"},
        {"edit_id": "a", "prompt": "Lima is in", "target_new": "Chile"},
    ]
    with caplog.at_level("WARNING"):
        records = read_edits(rows, skip_invalid=True)
    assert [(record.edit_id, record.prompt) for record in records] == [("a", "Rome is in"), ("d", "Bonn is in")]
    assert "left out 3 unusable edits" in caplog.text and "target_new" in caplog.text


def test_that_no_edit_is_left_is_an_error() -> None:
    rows = [{"prompt": "Rome is in", "target_new": True}, {"prompt": "Oslo is in"}]
    with pytest.raises(EditError, match=r"^no usable edit is left; the first that was left out: row 1 .* true"):
        read_edits(rows, skip_invalid=True)


def test_that_nothing_changes_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        records = read_edits([row("A is", "x", target_true="x "), row("B is", "x", target_true="y")])
        assert read_edits(records) == records
    assert caplog.text.count("target_new is target_true in 1 edit, first in edit_id '0'") == 1


def near(*answers, edit_id="a", target="Peru"):
    probes = [{"prompt": "Oslo is in", "target": answer} for answer in answers]
    return {"edit_id": edit_id, "prompt": "Rome is in", "target_new": target, "neighborhood_prompts": probes}


def test_a_neighborhood_prompt_has_one_answer():
    expected = r"neighborhood_prompts gives the prompt 'Oslo is in' both 'Norway' and 'Sweden'; keep one answer"
    with pytest.raises(EditError, match=expected):
        read_edits([near("Norway", "Sweden")])
    with pytest.raises(EditError, match="give the prompt 'Oslo is in' both 'Norway' and 'Sweden'; keep one answer a"):
        read_edits([near("Norway"), near("Sweden", edit_id="b")])
    (edit,) = read_edits([near("Norway"), near("Sweden", edit_id="b")], skip_invalid=True)
    assert [probe.target for probe in edit.neighborhood_prompts] == ["Norway"]
    (edit,) = read_edits([near("Norway", "Sweden"), near("Chile", edit_id="b")], skip_invalid=True)
    assert edit.edit_id == "b"


def test_an_edit_without_a_name_has_one_that_no_other_edit_has():
    edits = read_edits([{"prompt": f"{name} is", "target_new": "b"} for name in "AAC"])
    assert [edit.edit_id for edit in edits] == ["0", "2"]
    more = read_edits([*edits, {"prompt": "D is", "target_new": "b"}])
    assert [edit.edit_id for edit in more] == ["0", "2", "3"]
    assert [edit.prompt for edit in more] == ["A is", "C is", "D is"]


def test_rows_of_a_pool_without_a_target_are_counted(caplog):
    assert len(read_facts([{"prompt": "A is", "target": "b"}, {"prompt": "C is"}])) == 1
    assert caplog.messages == ["left out 1 row without a target, which give no fact"]
