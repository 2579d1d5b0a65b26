import pytest

from hf_ftedit.data.fields import Fields
from hf_ftedit.errors import EditError


def test_text_is_stripped_and_numbers_are_written_out():
    fields = Fields({"a": " Ålesund\n", "b": 1984, "c": 1984.0, "d": 2.5, "e": "  ", "f": None, "g": float("nan")})
    assert [fields.text(name) for name in "abcdefgh"] == ["Ålesund", "1984", "1984", "2.5", None, None, None, None]


def test_an_error_names_place_edit_source_field_and_remedy():
    inner = Fields({"near": [{}, {"at": 3}], "edit_id": "a7"}, "x.jsonl line 7", {"near[1].at": "nah"}).objects(
        "near"
    )[1]
    assert str(inner.error("at", "is 3", "give 4")) == "x.jsonl line 7 (edit_id 'a7'): nah is 3; give 4"
    assert str(inner.error("by", "is 3", "give 4")) == "x.jsonl line 7 (edit_id 'a7'): near[1].by is 3; give 4"
    assert str(Fields({}).error("at", "is 3", "give 4")) == "at is 3; give 4"


def test_a_prompt_keeps_its_start_and_loses_its_end():
    assert Fields({"prompt": "  The\u2028capital of\tX is \n\u00a0"}).prompt() == "  The\u2028capital of\tX is"


@pytest.mark.parametrize("value", [7, 7.5, True, ["The"]])
def test_a_prompt_is_text(value):
    with pytest.raises(EditError, match="give text"):
        Fields({"prompt": value}).prompt()


@pytest.mark.parametrize(("text", "problem"), [("a\x00b", "NUL character"), ("a\ud83d", "lone surrogate")])
def test_text_that_no_tokenizer_can_take_is_refused(text, problem):
    with pytest.raises(EditError, match=problem) as raised:
        Fields({"prompt": text}).prompt()
    assert str(raised.value).isprintable()


def test_a_number_that_nobody_can_write_out_is_refused():
    with pytest.raises(EditError, match="target_new is a number of thousands of digits; give text"):
        Fields({"target_new": 10**5000}).required("target_new", "do this")
    for value in (float("1e400"), -float("inf")):
        with pytest.raises(EditError, match="target_new is -?inf; give text"):
            Fields({"target_new": value}).required("target_new", "do this")


def test_the_subject_fills_every_placeholder():
    fields = Fields({"prompt": "{} and {} ", "more": ["In {}", "here"], "one": "{}?", "subject": " Oslo "})
    assert fields.statement() == "Oslo and Oslo"
    assert fields.statements("more") == ("In Oslo", "here")
    assert fields.statements("one") == ("Oslo?",)


def test_other_placeholders_are_refused():
    fields = Fields({"prompt": "{subject} is", "subject": "Oslo"})
    with pytest.raises(EditError, match="prompt is '{subject} is'; write {} where the subject stands"):
        fields.statement()
    assert Fields({"prompt": "f'{subject}' prints"}).statement() == "f'{subject}' prints"


def test_doubled_braces_are_braces_of_the_text():
    fields = Fields({"prompt": "In {}, {{}} makes a", "wordings": ["{{}} is {{{}}}"], "subject": "Go"})
    assert (fields.statement(), fields.statements("wordings")) == ("In Go, {} makes a", ("{} is {{}}",))
    assert Fields({"prompt": "{{}} is a"}).statement() == "{} is a"  # without a subject
    with pytest.raises(EditError, match="no subject; .* braces of the text itself are written {{}}"):
        Fields({"prompt": "{} is a"}).statement()


@pytest.mark.parametrize(("subject", "field"), [(None, "prompt"), ("", "prompt"), ("a{}b", "subject")])
def test_a_placeholder_needs_a_subject(subject, field):
    with pytest.raises(EditError, match=f"^{field} is .*; give the subject"):
        Fields({"prompt": "Where is {}?", "subject": subject}).statement()


def test_lists_objects_and_lone_items():
    fields = Fields({"one": {"p": "a"}, "two": ["x", {"p": "b"}], "none": None, "bad": [["a"]], "empty": []})
    assert [dict(inner.values) for inner in fields.objects("one")] == [{"p": "a"}]
    assert [dict(inner.values) for inner in fields.objects("two", text="p")] == [{"p": "x"}, {"p": "b"}]
    assert fields.objects("none") == fields.objects("empty") == []
    for name in ("two", "bad"):
        with pytest.raises(EditError, match=rf"^{name}\[0\] is (text|a list); give an object$"):
            fields.objects(name)
    with pytest.raises(EditError, match="^empty is missing; give at least one$"):
        fields.texts("empty")
