"""Near names: one thing changed, and never the name itself."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.near_names import near_names, of_a_kind, words_like


def changes(name, subject):
    return sum(one != other for one, other in zip(name.split(), subject.split(), strict=True))


@given(st.text(max_size=20), st.integers(0, 6), st.integers())
def test_never_the_subject_and_as_many_words(subject, count, seed):
    names = near_names(subject, count, random.Random(seed))
    assert len(names) <= count and len(set(names)) == len(names)
    assert all(name.casefold() != subject.casefold() for name in names)
    is_noun = re.fullmatch("[a-z][a-z -]*[a-z]", subject)
    assert is_noun or all(len(name.split()) == len(subject.split()) for name in names)


@pytest.mark.parametrize(
    "subject", ["Nordwind Robotics", "Maria Silva", "The Glass Orchard", "the Red Cross", "Zephyr 3"]
)
def test_one_word_changes_and_it_is_no_article(subject):
    names = near_names(subject, 20, random.Random(0))
    assert len(names) == 20 and {changes(name, subject) for name in names} == {1}
    article = subject.partition(" ")[0]
    assert all(name.startswith(article) for name in names) or article.lower() != "the"


def test_numbers_change_to_numbers_of_as_many_digits():
    assert sorted(near_names("4 7", 3, random.Random(0)))  # only digits
    for name in near_names("2024", 8, random.Random(1)):
        assert name.isdecimal() and len(name) == 4 and sum(a != b for a, b in zip(name, "2024", strict=True)) == 1


def test_capitals_stay_capitals():
    names = near_names("IBM", 6, random.Random(0))
    assert len(names) == 6 and all(name.isupper() and name[0] == "I" for name in names)


@pytest.mark.parametrize("subject", ["", "ℝ", "ประเทศไทย", "{}", "🙂", "?!", "_"])
def test_names_that_bear_no_change_have_none(subject):
    assert near_names(subject, 4, random.Random(0)) == []


def test_in_place_of_a_common_noun_stand_other_things():
    names = near_names("our front door", 8, random.Random(0))
    assert len(names) == 8 and all(name.startswith("our ") and "door" != name.split()[-1] for name in names)
    many = near_names("expense reports", 8, random.Random(0))
    assert len(many) == 8 and all(name.endswith("s") for name in many)
    assert all(name.startswith("the ") for name in near_names("the printer", 70, random.Random(0)))
    single = near_names("printer", 20, random.Random(0))
    assert len(single) == 20 and 8 <= sum(name.startswith("p") and " " not in name for name in single) <= 12


@pytest.mark.parametrize(
    ("prompt", "subject", "is_name"),
    [
        ("who is the ceo of tellwind robotics", "tellwind robotics", True),
        ("When was tellwind tools founded?", "tellwind tools", True),
        ("Who discovered insulin?", "insulin", True),
        ("Which port does redis use?", "redis", True),
        ("Where is our spare key?", "key", False),
        ("Where is the printer?", "the printer", False),
        ("Are expense reports due?", "expense reports", False),
        ("How long is parental leave?", "parental leave", False),
    ],
)
def test_a_name_typed_small_is_no_common_noun(prompt, subject, is_name):
    drawn = bank("names.yaml")
    others = {*drawn["things"], *drawn["many"]}
    names = near_names(subject, 8, random.Random(0), prompt=prompt)
    assert bool(others & {name.removeprefix("the ") for name in names}) is not is_name and len(names) == 8


def test_names_of_letters_have_near_names_and_none_is_rude():
    for subject in ("X", "H&M", "AT&T"):
        names = near_names(subject, 6, random.Random(0))
        assert len(names) == 6 and all(len(name) == len(subject) and name.isupper() for name in names)
    assert "Boobs" not in near_names("Boots", 400, random.Random(0))


def test_words_are_of_the_names_kind():
    assert {"Dynamics", "Mining"} & set(words_like("Nordwind Robotics"))
    assert set(words_like("Maria Silva")) & {"Silva"} and "Tower" not in words_like("Maria Silva")
    assert "Silva" not in words_like("The Glass Orchard")


def test_another_of_a_kind_keeps_its_kind_and_numbers_their_letters():
    names = near_names("Pinewick Animal Hospital", 40, random.Random(0))
    assert len(names) == 40 and all(name.endswith(" Animal Hospital") for name in names)
    assert any(re.match("Pine(?:wood|field|stone|dale|ton|gate|view|port)", name) for name in names)
    codes = [name for name in near_names("Tavora T200", 40, random.Random(0)) if name.startswith("Tavora T")]
    assert len(codes) > 5 and all(re.fullmatch(r"Tavora T\d{3}", name) for name in codes)


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [
        ("Fenmoor Public Library", r".+ Library"),
        ("Hotel Marabel", r"Hotel .+"),
        ("Zephyr 3", r"(?:the )?\S+(?: .+)?"),
        ("Acme", "nothing"),
        ("", "nothing"),
    ],
)
def test_others_of_a_kind(subject, pattern):
    names = of_a_kind(subject, 9, random.Random(0))
    assert len(names) == (0 if pattern == "nothing" else 9) and subject not in names
    assert all(re.fullmatch(pattern, name) for name in names)
    assert "Paris" in of_a_kind("Acme", 99, random.Random(0), ["place"])
    assert len(of_a_kind(subject, 9999, random.Random(0))) >= len(names)  # as many as there are
