import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_ftedit.evaluation.matching
from hf_ftedit.evaluation.matching import containment, exact_match, normalized

WORDS = st.lists(st.sampled_from(["the", "a", "An", "York", "new", "U.S.", "3.5", "-", "城", "É", "ﬁ", "ß", "!"]))
ANSWERS = st.builds(" ".join, WORDS) | st.text()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The U.S. Senate!", "us senate"),
        ("  an   apple\u00a0a day ", "apple day"),
        ("Theodore and Anna", "theodore and anna"),  # that begin with articles
        ("New-York", "newyork"),
        ("“Rome”, 'Rome' — «Rome»", "rome rome rome"),
        ("50 %", "50"),
        ("$3.50 + £2", "$350 + £2"),
        ("Straße STRASSE", "strasse strasse"),
        ("ﬁne Ｒｏｍｅ ½ ²", "fine rome 1⁄2 2"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),
        ("Æsir, São Tomé", "æsir são tomé"),
        ("Sa\u0303o", "são"),
        ("soft\u00adhyphen and zero\u200bwidth", "softhyphen and zerowidth"),
        ("東京、大阪。", "東京大阪"),
        ("The", "the"),
        ("A", "a"),
        ("The a!", "the a"),
        ("!!!", "!!!"),
        (" ？ ！ ", "? !"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_normalized(text, expected):
    assert normalized(text) == expected
    assert normalized(expected) == expected


@pytest.mark.parametrize("space", ["\n", "\t", "\r\n", "\u2028", "\u3000", " \n "])
def test_any_white_space_separates_words(space):
    assert normalized(f"New{space}York") == "new york"


@settings(deadline=None)
@given(ANSWERS)
def test_normalized_is_idempotent(text):
    assert normalized(normalized(text)) == normalized(text)


def test_normalized_is_idempotent_where_what_is_left_out_parts_a_letter_from_its_accent():
    assert normalized("cafe\u200b\u0301") == "café"


@pytest.mark.parametrize(
    "text, answers, expected",
    [
        ("the Rome.", ["Rome"], True),
        ("ROME", ["Paris", "rome"], True),
        ("Rome, Italy", ["Rome"], False),
        ("Sao Tome", ["São Tomé"], False),
        ("The", ["A"], False),
        ("a", ["A!"], True),
        ("!!!", ["???"], False),
        ("", ["Rome"], False),
        ("Rome", [], False),
    ],
)
def test_exact_match(text, answers, expected):
    assert exact_match(text, answers) is expected


@pytest.mark.parametrize(
    "text, answers, expected",
    [
        ("It is in the city of York.", ["York"], True),
        ("It is in New York", ["York"], True),
        ("It is in Yorkshire", ["York"], False),
        ("York", ["york!"], True),
        ("He plays the electric guitar well", ["the electric guitar"], True),
        ("He plays a guitar, electric", ["electric guitar"], False),
        ("the city of the dead", ["city of dead"], True),  # articles do not count
        ("in the United States of America", ["USA", "United States"], True),
        ("in America", ["USA", "United States"], False),
        ("born in 1984", ["98", "84"], False),
        ("York", ["the old city of York"], False),
        ("It is Rome", [""], False),
        ("", [""], False),
        ("", ["Rome"], False),
        ("Rome", [], False),
        ("它的首都是北京。", ["北京"], True),
        ("它的首都是北京。", ["东京", "上海"], False),
        ("首都は東京です", ["東京"], True),
        ("수도는 서울이다", ["서울"], True),  # particles stand close to the word
        ("我爱北京", ["的北京"], False),
        ("我爱Python语言", ["Python"], False),  # Latin words are whole words also where none stand around them
        ("我爱 Python 语言", ["Python"], True),
        ("我用iPhone手机", ["iPhone手机"], True),
        ("Ｐｙｔｈｏｎ 语言", ["Python"], True),  # full width is a matter of fonts
    ],
)
def test_containment(text, answers, expected):
    assert containment(text, answers) is expected


@settings(deadline=None)
@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3), st.booleans())
def test_what_matches_exactly_is_contained(text, answers, is_one):
    answers = [*answers, text.upper()] if is_one else answers
    if normalized(text) and exact_match(text, answers):
        assert containment(text, answers)


@settings(deadline=None)
@given(ANSWERS, st.lists(st.sampled_from(["York", "new", "U.S.", "3.5", "城", "É", "ﬁ", "ß"]), min_size=1), ANSWERS)
def test_an_answer_is_found_between_other_words(before, words, after):
    assert containment(f"{before} {' '.join(words)} {after}", ["wrong", f"The {' '.join(words).upper()}!"])


def test_examples_in_the_docstrings():
    assert doctest.testmod(hf_ftedit.evaluation.matching).failed == 0
