import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_ftedit.models.answer_text
from hf_ftedit.models.answer_text import containment, exact_match, first_sentence, normalized

SENTENCES = st.text(st.sampled_from("ab A.!?\n 。3é")) | st.text()
WORDS = st.lists(st.sampled_from(["the", "a", "An", "York", "new", "U.S.", "3.5", "-", "城", "É", "ﬁ", "ß", "!"]))
ANSWERS = st.builds(" ".join, WORDS) | st.text()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Rome", "Rome"),
        (" Rome. It lies", "Rome"),
        ("Rome.", "Rome"),
        (" Rome! It", "Rome"),
        (" Rome? Yes", "Rome"),
        (" Rome\nParis", "Rome"),
        (" Rome \n\n Paris", "Rome"),
        ("\n\nRome\nParis", "Rome"),  # a model that starts with a line break
        (" J. R. R. Tolkien. He", "J. R. R. Tolkien"),
        (" J.R.R. Tolkien. He", "J.R.R. Tolkien"),
        (" George H. W. Bush, of course. He", "George H. W. Bush, of course"),
        (" 3.5 million people. It", "3.5 million people"),
        (" in 1984. It", "in 1984"),
        (" 3.5 million! Yes", "3.5 million"),
        (" Washington, D.C. is\nmore", "Washington, D.C. is"),
        (" at 10.30 in St. Louis. There", "at 10.30 in St. Louis"),
        (" Washington D.C. is its seat. It", "Washington D.C. is its seat"),
        (" Dr. Jekyll and Mr. Hyde. It", "Dr. Jekyll and Mr. Hyde"),
        (" Martin Luther King Jr. and Gen. Lee met. They", "Martin Luther King Jr. and Gen. Lee met"),
        (" the first. Prof. Moriarty", "the first"),
        (" a forest. It", "a forest"),  # that ends in "st"
        (" example.com and Yahoo! Inc", "example.com and Yahoo"),
        (" Who framed Roger Rabbit?! It", "Who framed Roger Rabbit?"),
        (" Well... it is Rome. Or", "Well.."),
        (" Well… it is Rome. Or", "Well… it is Rome"),
        ("東京。大阪", "東京"),
        ("本当！はい", "本当"),
        ("何？はい", "何"),
        ("", ""),
        (" \n\t ", ""),
        (".", ""),
        (" . Rome", ""),
        ("! Rome", ""),
    ],
)
def test_first_sentence(text, expected):
    assert first_sentence(text) == expected


@pytest.mark.parametrize("text, expected", [(" 7. It has", "7"), (" group 9. It", "group 9"), (" 3.5. It", "3.5")])
def test_a_digit_is_no_initial(text, expected):
    assert first_sentence(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        " vitamin C. It is in lemons",  # no way to tell it from an initial
        " He said “no.” Then he left",
        " No. 5 by Chanel",
    ],
)
def test_what_may_go_on_is_not_cut(text):
    assert first_sentence(text) == text.strip()


@settings(deadline=None)
@given(SENTENCES)
def test_a_first_sentence_is_a_part_of_the_text_on_one_line(text):
    found = first_sentence(text)
    assert found in text
    assert "\n" not in found
    assert found == found.strip()


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
    assert doctest.testmod(hf_ftedit.models.answer_text).failed == 0
