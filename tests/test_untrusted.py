"""Data of strangers: what a schema allows passes as it is, and the rest is one error with its place."""

import json
import math

import pytest
import yaml
from hostile_folders import BOMB, HUGE, MERGES

from hf_ftedit.errors import EditError
from hf_ftedit.untrusted import (
    MOST_BYTES_OF_LINE,
    check_lines,
    check_regular,
    choice,
    either,
    flag,
    listed,
    mapped,
    maybe,
    number,
    parse_json,
    parse_yaml,
    plain_name,
    plain_value,
    read_as,
    read_small,
    text,
    whole,
)

PERSON = mapped({"name": text(5), "age": maybe(whole(0, 150))}, number(0, 1), needed=("name",))
ALLOWED = [
    (flag, False),
    (whole(1, 3), 3),
    (number(0, 1), 0),
    (number(0, 1), 0.5),
    (text(3), "a\nb"),
    (choice("a", 1, None), None),
    (listed(whole(0, 9), 2), [1, 2]),
    (either(whole(0, 9), listed(flag)), [True]),
    (plain_name, "layers.0.q-proj_1"),
    (PERSON, {"name": "Emma", "age": None, "height": 0.9}),
    (plain_value, {"a b": [1, 2.5, None, {"c": "\x1b"}]}),
]
REFUSED = [
    (flag, 1, "x is 1, not one of True, False"),
    (whole(1, 3), True, "x is True, not a whole number from 1 to 3"),
    (whole(1, 3), HUGE, "x is 1000"),
    (number(0, 1), math.nan, "x is nan, not a number from 0 to 1"),
    (number(0, 1), "0.5", "x is '0.5', not a number"),
    (text(3), "abcd", "x is 'abcd', not text of at most 3 characters"),
    (text(9, "[a-z]*", "a word"), "a b", "x is 'a b', not a word of at most 9 characters"),
    (choice("a", 1), True, "x is True, not one of 'a', 1"),
    (listed(whole(0, 9), 2), [1, 2, 3], "x is [1, 2, 3], not a list of at most 2 values"),
    (listed(whole(0, 9)), [1, "2"], "x[1] is '2', not a whole number from 0 to 9"),
    (either(whole(0, 9), listed(flag)), [5], "x[0] is 5, not one of True, False"),
    (plain_name, "(.*)*", "x is '(.*)*', not a name"),
    (PERSON, [], "x is [], not names with values"),
    (PERSON, {"age": 5}, "x has no name"),
    (PERSON, {"name": "Emma", "age": "5"}, "x: age is '5', not a whole number from 0 to 150"),
    (PERSON, {"name": "Emma", "\x1b[2J": 1}, "x: a name is '\\x1b[2J', not a name"),
    (mapped({"a": flag}), {"b": True}, "x: 'b' is not known"),
    (plain_value, {1: 2}, "x is {1: 2}, not names, texts and numbers"),
    (plain_value, [math.inf], "x is [inf], not names, texts and numbers"),
    pytest.param(whole(0, 9), int("9" * 4000) ** 2, "x is a number of thousands of digits, not", id="digits"),
]


@pytest.mark.parametrize(("rule", "value"), ALLOWED)
def test_what_is_allowed_passes(rule, value):
    rule(value, "x")


@pytest.mark.parametrize(("rule", "value", "message"), REFUSED)
def test_what_is_not_is_named_with_its_place(rule, value, message):
    with pytest.raises(EditError) as raised:
        rule(value, "x")
    assert str(raised.value).startswith(message) and str(raised.value).endswith("; write or download it again")


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}], "c": "ä"}, [1.5, True], "text", None])
def test_values_are_read_as_they_are(value):
    assert parse_yaml(yaml.safe_dump(value)) == value
    assert parse_json(json.dumps(value)) == value


def test_a_few_references_are_read():
    """As PyYAML writes a list that stands in two places."""
    lengths = [5, 10]
    written = yaml.safe_dump({"prefix_lengths": lengths, "prefix_counts": lengths})
    assert "*id001" in written and parse_yaml(written) == {"prefix_lengths": [5, 10], "prefix_counts": [5, 10]}


@pytest.mark.parametrize("written", ["seed: 1\nlora_r: 2\nseed: 3", "a:\n- {b: 1,\n  b: 1}", "a: {b: 1}\n? b\n? b"])
def test_a_key_that_is_given_twice_is_told(written):
    with pytest.raises(ValueError, match="^line [34] gives '(seed|b)' a second time$"):
        parse_yaml(written)
    assert parse_yaml("a: &a {c: 1}\nb: &b {<<: *a, c: 2}\nd: {<<: *b, c: 3}")["d"] == {"c": 3}


@pytest.mark.parametrize("value", ["!!bool maybe", "!!int ''", "!!float ''", "!!timestamp abc"])
def test_a_value_that_does_not_fit_its_tag_is_told(tmp_path, value):
    (tmp_path / "x").write_text(f"seed: {value}")
    with pytest.raises(EditError, match="x cannot be read .*; write or download it again"):
        read_as(tmp_path / "x", "x", parse_yaml)


@pytest.mark.parametrize(
    "bomb", [BOMB, MERGES, "a: &a [*a]", "a: &a {b: *a}", "[" * 10**6, "a: 1" + ":1" * 10**6, "[" + "1," * 10**6 + "]"]
)
def test_bombs_are_refused_before_they_are_made(bomb):
    # Of "[[[..." PyYAML 6.0.4 says itself that it is nested too deeply.
    with pytest.raises((ValueError, yaml.YAMLError), match="nested too deeply|nesting depth|more than"):
        parse_yaml(bomb)


def test_a_large_file_is_read_no_further_than_it_may_be(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert read_small(tmp_path / "x", 3) == "abc"
    with pytest.raises(ValueError, match="larger"):
        read_small(tmp_path / "x", 2)


def test_a_line_may_be_long_but_no_book(tmp_path):
    (tmp_path / "x").write_bytes(b"a\n" + b"b" * (MOST_BYTES_OF_LINE - 1) + b"\n")
    check_lines(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"a\n" + b"b" * (MOST_BYTES_OF_LINE + 1) + b"\nc")
    with pytest.raises(EditError, match="x line 2 is longer than 1 MB"):
        check_lines(tmp_path / "x")


def test_links_are_refused(tmp_path):
    folder = tmp_path / "a"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "x.json").write_text("{}")
    check_regular(folder, "a")
    (folder / "y.json").symlink_to(tmp_path / "secret")
    with pytest.raises(EditError, match=r"^'a': y\.json is a link; put the file itself there$"):
        check_regular(folder, "a")
