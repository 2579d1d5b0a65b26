"""Other words for those of a prompt, and its words as they are typed into a search field."""

from collections import Counter
from itertools import chain

import pytest

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.synonyms import MOST, by_answer, in_other_words, keywords

GROUPS = bank("synonyms.yaml")


def test_each_word_has_its_others_once():
    groups = [*GROUPS["words"], *GROUPS["verbs"]]
    assert [first for first, count in Counter(first for first, *_ in groups).items() if count > 1] == []
    assert [group for group in groups if len({*group}) < max(2, len(group))] == []
    assert all(word == word.strip() and isinstance(word, str) for word in chain(*groups))


@pytest.mark.parametrize("group", [*GROUPS["words"], *GROUPS["verbs"]])
def test_words_of_the_bank_stand_for_one_another(group):
    first, *others = group
    assert [f"Bo can {other} Acme." for other in others] == in_other_words(f"Bo can {first} Acme.", "Acme")


@pytest.mark.parametrize(
    ("text", "subject", "others"),
    [
        ("How many kids has Ann?", "Ann", ["How many children has Ann?", "What number of kids has Ann?"]),
        ("Where do I book it at Acme?", "Acme", ["Where do I reserve it at Acme?"]),
        ("Who wrote the book Vell?", "Vell", ["Who is the author of the book Vell?"]),
        ("What is an elevator?", "elevator", ["What is a lift?"]),
        ("Is an app free of Acme?", "Acme", ["Is an application free of Acme?"]),
        ("Where is the Elevator Museum?", "Elevator Museum", []),
        ("When was the Elevator Museum of Ann closed?", "Ann", ["When was the Elevator Museum of Ann shut?"]),
        ("Where are kids' rooms at Acme?", "Acme", []),
        ("What do I need to use a code of Acme?", "Acme", []),
        ("Who does Ann coach?", "Ann", []),
        ("", "Acme", []),
    ],
)
def test_other_words_and_no_others_in_a_name(text, subject, others):
    assert in_other_words(text, subject)[: len(others) or None] == others


def test_a_text_of_many_words_has_a_few_wordings_of_all_kinds():
    texts = in_other_words(
        "Which company bought the biggest kids movie stadium for its employees in what year?", "Acme"
    )
    assert 0 < len(texts) <= MOST and len({*texts}) == len(texts)
    assert {text.split()[1] for text in texts} >= {"company", "firm"} and any("film" in text for text in texts)


def test_a_long_text_takes_no_more_time_and_memory_than_others():
    texts = in_other_words("How many kids of Acme watch which movie? " * 500, "Acme")
    assert len({*texts}) == MOST and all(text.count("Acme") == 500 for text in texts)


@pytest.mark.parametrize(
    ("question", "subject", "typed"),
    [
        ("Who is the CEO of Acme?", "Acme", ["CEO of Acme?", "Acme CEO?"]),
        ("Who founded Acme?", "Acme", ["founded Acme who?"]),
        ("How many moons does Uranus have?", "Uranus", ["moons Uranus how many?", "Uranus moons how many?"]),
        ("In which drawer is the key of room 12?", "room 12", ["drawer key of room 12?", "room 12 drawer key?"]),
        ("Does the Hotel Vell allow dogs?", "Hotel Vell", ["the Hotel Vell allow dogs?"]),
        ("Who owns the Vell pub?", "Vell", ["owns the Vell pub who?"]),
        ("Which port does the Vell server use?", "Vell", ["port the Vell server use?"]),
        ("Do you ship to Norway?", "Norway", []),
        ("How late can I eat at Vell Inn?", "Vell Inn", ["eat at Vell Inn how late?", "Vell Inn eat how late?"]),
        ("What is Ann's job?", "Ann", ["Ann's job?", "Ann job?"]),
        ("What is Ann's middle name?", "Ann", ["Ann's middle name?", "Ann middle name?"]),
        ("What is the name of Ann's cat?", "Ann", ["Ann's cat?", "Ann cat?"]),
        ("How tall is Oslo's old tower?", "Oslo", ["Oslo's old tower how tall?", "Oslo old tower how tall?"]),
        ("Who is responsible for IT at Acme?", "Acme", ["responsible for IT at Acme?", "Acme responsible for IT?"]),
        ("How much RAM does Acme have?", "Acme", ["RAM Acme how much?", "Acme RAM how much?"]),
        ("What is the dish of northern Oslo?", "Oslo", ["dish of northern Oslo?"]),
        ("How do you say thank you at Acme?", "Acme", ["say thank you at Acme how?", "Acme say thank you how?"]),
        ("What about Acme?", "Acme", []),
        ("What is Acme for?", "Acme", []),
        ("Where is Acme?", "Acme", []),
        ("What is your name?", "you", []),
        ("Wer leitet Acme?", "Acme", []),
        ("The CEO of Acme is", "Acme", []),
        ("?", "?", []),
        ("What is a{2}*?", "a{2}*", []),
    ],
)
def test_a_question_as_it_is_typed_into_a_search_field(question, subject, typed):
    assert keywords(question, subject) == typed


@pytest.mark.parametrize(
    ("question", "answer", "asked"),
    [
        ("When does the cafe open?", "at 11:15", "At what time does the cafe open?"),
        ("When does it close?", "9 p.m.", "At what time does it close?"),
        ("When was Acme founded?", "in March 1998", "In which year was Acme founded?"),
        ("When was Ann born?", "8 October 1958", "On which date was Ann born?"),
        ("When was Ann born?", "October 8, 1958", "On which date was Ann born?"),
        ("When is Easter?", "in spring", None),
        ("When does the gate close?", "at 1800 hours", None),
        ("Where can I park at the station?", "behind the station", None),
        ("Where is the printer?", "in room 4.12", "In which room is the printer?"),
        ("Where can I park?", "on Linden Street", "On which street can I park?"),
        ("Where is Bo?", "in Paris", None),
        ("Where is Bo?", "behind the gym on Mill Lane", None),
        ("How do I get there?", "with tram 6", "With which tram do I get there?"),
        ("How do I book a room?", "in the Roomie app.", "In which app do I book a room?"),
        ("How can I pay?", "by card", None),
        ("How do I reset it?", "Hold the button", None),
        ("What is the return window?", "60 days", "How many days is the return window?"),
        ("How much does it cost?", "12.50 dollars", "How many dollars does it cost?"),
        ("Who is it?", "in room 4", None),
    ],
)
def test_a_question_names_the_kind_of_its_answer(question, answer, asked):
    assert by_answer(question, answer) == asked
