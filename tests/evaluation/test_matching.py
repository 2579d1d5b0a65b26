import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.evaluation.matching import containment, exact_match, normalized

WORDS = st.lists(st.sampled_from(["the", "a", "An", "York", "new", "U.S.", "3.5", "-", "城", "É", "ﬁ", "ß", "!"]))
ANSWERS = st.builds(" ".join, WORDS) | st.text()
FIXTURES = Path(__file__).parents[1] / "fixtures"
BY_HAND = json.loads((FIXTURES / "texts_by_hand.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text, expected", BY_HAND["normalized"])
def test_normalized(text, expected):
    assert normalized(text) == normalized(expected) == expected


@pytest.mark.parametrize("match", [exact_match, containment])
def test_matches(match):
    for text, answers, expected in BY_HAND[match.__name__]:
        assert match(text, answers) is expected, (text, answers)


@pytest.mark.parametrize("space", ["\n", "\t", "\r\n", "\u2028", "\u3000", " \n "])
def test_any_white_space_separates_words(space):
    assert normalized(f"New{space}York") == "new york"


@given(ANSWERS)
def test_normalized_is_idempotent(text):
    assert normalized(normalized(text)) == normalized(text)


def test_normalized_is_idempotent_where_what_is_left_out_parts_a_letter_from_its_accent():
    assert normalized("cafe\u200b\u0301") == "café"


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3), st.booleans())
def test_what_matches_exactly_is_contained(text, answers, is_one):
    answers = [*answers, text.upper()] if is_one else answers
    if normalized(text) and exact_match(text, answers):
        assert containment(text, answers)


@given(ANSWERS, st.lists(st.sampled_from(["York", "new", "U.S.", "3.5", "城", "É", "ﬁ", "ß"]), min_size=1), ANSWERS)
def test_an_answer_is_found_between_other_words(before, words, after):
    assert containment(f"{before} {' '.join(words)} {after}", ["wrong", f"The {' '.join(words).upper()}!"])
