import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.data.records import EditRecord, Fact, NeighborhoodPrompt, PortabilityPrompt, write_jsonl
from hf_ftedit.errors import EditError

FULL = EditRecord(
    edit_id="a7",
    prompt="The capital of Kazakhstan is",
    target_new="Astana",
    subject="Kazakhstan",
    target_true="Almaty",
    paraphrase_prompts=("Kazakhstan is governed from",),
    neighborhood_prompts=(
        NeighborhoodPrompt("The capital of Peru is", "Lima", "Lima, on the coast."),
        NeighborhoodPrompt("Fiji's capital:"),
    ),
    portability_prompts=(PortabilityPrompt("Kazakhstan's president works in", ("Astana", "Nur-Sultan"), "reasoning"),),
    generation_prompts=("Kazakhstan is", "Kazakhstan is"),
    relation_id="P36",
    target_aliases=("Nur-Sultan",),
    reference_texts=("Astana lies on the Ishim.",),
    wordings=("Which city is Kazakhstan's capital?",),
    near_name_prompts=("The capital of Kazakstan is",),
    made_probes=True,
    erase=True,
)
FULL_ROW = {
    "edit_id": "a7",
    "prompt": "The capital of Kazakhstan is",
    "target_new": "Astana",
    "subject": "Kazakhstan",
    "target_true": "Almaty",
    "paraphrase_prompts": ["Kazakhstan is governed from"],
    "neighborhood_prompts": [
        {"prompt": "The capital of Peru is", "target": "Lima", "answer": "Lima, on the coast."},
        {"prompt": "Fiji's capital:", "target": None},
    ],
    "portability_prompts": [
        {"prompt": "Kazakhstan's president works in", "answers": ["Astana", "Nur-Sultan"], "aspect": "reasoning"}
    ],
    "generation_prompts": ["Kazakhstan is", "Kazakhstan is"],
    "relation_id": "P36",
    "target_aliases": ["Nur-Sultan"],
    "reference_texts": ["Astana lies on the Ishim."],
    "wordings": ["Which city is Kazakhstan's capital?"],
    "near_name_prompts": ["The capital of Kazakstan is"],
    "made_probes": True,
    "erase": True,
}
# A row of 0.1.0: the fields that came later are not in it, nor are they where they are empty.
NEW = {"wordings": (), "near_name_prompts": (), "made_probes": False, "erase": False}

# Clean texts: nothing that reading would strip, fill in or refuse.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1) | st.text("{} a")
texts = texts.map(str.strip).filter(bool)
optional = st.none() | texts
records = st.builds(
    EditRecord,
    edit_id=texts,
    prompt=texts,
    target_new=texts,
    subject=optional,
    target_true=optional,
    paraphrase_prompts=st.lists(texts, max_size=3).map(tuple),
    neighborhood_prompts=st.lists(st.builds(NeighborhoodPrompt, texts, optional, optional), max_size=3).map(tuple),
    portability_prompts=st.lists(
        st.builds(PortabilityPrompt, texts, st.lists(texts, min_size=1, max_size=3).map(tuple), optional), max_size=3
    ).map(tuple),
    generation_prompts=st.lists(texts, max_size=3).map(tuple),
    relation_id=optional,
    target_aliases=st.lists(texts, max_size=2).map(tuple),
    reference_texts=st.lists(texts, max_size=2).map(tuple),
    wordings=st.lists(texts, max_size=2).map(tuple),
    near_name_prompts=st.lists(texts, max_size=2).map(tuple),
    made_probes=st.booleans(),
    erase=st.booleans(),
)


def test_a_record_made_in_python_is_checked():
    record = EditRecord(
        "a", "p", "t", paraphrase_prompts=["q"], neighborhood_prompts=["n", {"prompt": "m", "target": "x"}]
    )
    assert record.paraphrase_prompts == ("q",)
    assert record.neighborhood_prompts == (NeighborhoodPrompt("n"), NeighborhoodPrompt("m", "x"))
    for fields, message in (
        ({"paraphrase_prompts": "The city is"}, "edit 'a': paraphrase_prompts is text, 'The city is'; give a list"),
        ({"wordings": [5]}, "edit 'a': wordings is of type int, 5; give texts"),
        ({"neighborhood_prompts": [{"text": "n"}]}, "neighborhood_prompts is an object"),
        ({"target_new": 5}, "target_new is of type int, 5; give a text"),
        ({"subject": 5}, "subject is of type int, 5; give a text, or None"),
        ({"erase": "false"}, "erase is text, 'false'; give True or False"),
    ):
        with pytest.raises(EditError, match=message):
            EditRecord(**{"edit_id": "a", "prompt": "p", "target_new": "t", **fields})


def test_native_row_by_hand():
    assert FULL.to_dict() == FULL_ROW
    assert EditRecord.from_dict(FULL_ROW) == FULL
    assert list(FULL.to_dict()) == list(FULL_ROW)


def test_fields_that_0_1_0_lacked_are_written_only_where_they_say_something():
    old = {name: value for name, value in FULL_ROW.items() if name not in NEW}
    assert replace(FULL, **NEW).to_dict() == old
    assert EditRecord.from_dict(old) == replace(FULL, **NEW)


def test_a_subject_stands_in_wordings_and_in_no_near_name_prompt():
    row = {"edit_id": 1, "prompt": "{} is in", "target_new": "Gaul", "subject": "Rome", "wordings": "Where is {}?"}
    record = EditRecord.from_dict({**row, "near_name_prompts": "Where is {} Rome?", "made_probes": "True"})
    assert record.wordings == ("Where is Rome?",)
    assert record.near_name_prompts == ("Where is {} Rome?",)
    assert record.made_probes is True


@given(records)
def test_native_format_round_trips(record):
    assert EditRecord.from_dict(record.to_dict()) == record
    assert EditRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_what_is_said_in_place_of_an_erased_fact_may_be_open():
    row = {"edit_id": 3, "prompt": "Where is Rome?", "erase": True}
    assert EditRecord.from_dict(row) == EditRecord("3", "Where is Rome?", "", erase=True)
    assert EditRecord.from_dict({**row, "target_new": " Who knows? "}).target_new == "Who knows?"
    with pytest.raises(EditError, match="target_new is missing; give the text that should follow the prompt"):
        EditRecord.from_dict({**row, "erase": "false"})


@pytest.mark.parametrize(
    ("prompt", "subject", "template"),
    [
        ("The capital of Kazakhstan is", "Kazakhstan", "The capital of {} is"),
        ("Lyon? Lyon's twin is", "Lyon", "{}? {}'s twin is"),
        ("The capital of a is", "a", "The capital of {} is"),  # not inside other words
        ("Who lives in Inari, Inarinsaari?", "Inari", "Who lives in {}, Inarinsaari?"),
        ("哈萨克斯坦的首都是", "哈萨克斯坦", "{}的首都是"),  # no spaces between words
        ("aaa", "a", "{}{}{}"),
        ("Where is Peru?", "Fiji", None),
        ("Where is Peru?", None, None),
        ("Where is Peru?", "", None),
        ("In Rust, {} is", "Rust", None),  # it would be filled in twice
    ],
)
def test_template(prompt, subject, template):
    for statement in (EditRecord("a", prompt, "x", subject=subject), Fact(prompt, "x", subject)):
        assert statement.template == template
        assert template is None or template.replace("{}", subject) == prompt


@given(texts, texts)
def test_a_filled_template_is_the_prompt(prompt, subject):
    text = f"{prompt}{subject}{prompt}"
    template = Fact(text, "x", subject).template
    assert template is None if "{}" in text else "{}" in template
    if "{" not in text and "}" not in text:
        assert template.replace("{}", subject) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_new": ""}, "target_new is empty; give the text that should follow the prompt"),
        ({"target_new": None}, "target_new is missing; give the text that should follow the prompt"),
        ({"prompt": " \n"}, "prompt is empty; give the text to complete"),
        ({"prompt": ["The"]}, "prompt is a list; give text"),
        ({"prompt": "a\x00b"}, r"prompt holds a NUL character: 'a\x00b'; remove it"),
        ({"target_new": {"str": "x"}}, "target_new is an object; give text"),
        ({"target_true": False}, "target_true is true or false; give text"),
        ({"edit_id": "", "prompt": "x"}, "edit_id is empty; give each edit a name of its own"),
        ({"paraphrase_prompts": ["a", ""]}, "paraphrase_prompts[1] is empty; give the text to complete"),
        ({"paraphrase_prompts": 5}, "paraphrase_prompts is 5, a number; give text"),
        ({"generation_prompts": {"a": 1}}, "generation_prompts is an object; give text"),
        ({"neighborhood_prompts": [["a", "b"]]}, "neighborhood_prompts[0] is a list; give an object"),
        ({"neighborhood_prompts": [{"target": "b"}]}, "neighborhood_prompts[0].prompt is missing; give the text to"),
        ({"neighborhood_prompts": [{"prompt": "b", "target": []}]}, "neighborhood_prompts[0].target is a list"),
        ({"portability_prompts": ["a"]}, "portability_prompts[0] is text; give an object"),
        ({"portability_prompts": [{"prompt": "a"}]}, "portability_prompts[0].answers is missing; give at least one"),
        ({"portability_prompts": [{"prompt": "a", "answers": ["x", " "]}]}, "answers[1] is empty; leave it out"),
        ({"wordings": [" "]}, "wordings[0] is empty; give the text to complete"),
        ({"near_name_prompts": [3]}, "near_name_prompts[0] is 3, a number; give text"),
        ({"made_probes": "yes"}, "made_probes is 'yes'; give true or false"),
        ({"prompt": "{} is", "subject": None}, "prompt is '{} is' and there is no subject; give the subject"),
        (
            {"paraphrase_prompts": ["{} is"], "subject": None},
            "paraphrase_prompts[0] is '{} is' and there is no subject",
        ),
    ],
)
def test_an_unusable_row_is_refused_in_one_line(change, message):
    with pytest.raises(EditError) as raised:
        EditRecord.from_dict({**FULL_ROW, "erase": False, **change}, "edits.jsonl line 7")
    text = str(raised.value)
    assert text.startswith(f"edits.jsonl line 7 (edit_id {change.get('edit_id', 'a7')!r}): ")
    assert message in text and "\n" not in text


def test_a_fact_is_checked_as_an_edit_is():
    row = {"prompt": "{} lies in ", "target": " Peru ", "subject": "Lima", "relation_id": "P17", "known_id": 3}
    assert Fact.from_dict(row) == Fact("Lima lies in", "Peru", "Lima", "P17")
    with pytest.raises(EditError, match="^pool.json row 2: target is missing; give the fact's answer$"):
        Fact.from_dict({"prompt": "Lima lies in"}, "pool.json row 2")


def test_write_jsonl(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text("old")
    odd = replace(FULL, edit_id="b", prompt="Line\none\u2028two 🇺🇳 is")
    write_jsonl((record for record in (FULL, odd)), path)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:2]] == [FULL.to_dict(), odd.to_dict()] and lines[2:] == [""]
    assert "🇺🇳" in lines[1]
