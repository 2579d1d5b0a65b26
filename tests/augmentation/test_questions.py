"""Questions of many kinds, and others about the subject of an edit: none that an edit of that subject answers."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.questions import (
    COMMON,
    drift_prompts,
    kinds_by_use,
    may_ask_the_same,
    other_questions,
    training_questions,
    with_qualifiers,
)
from hf_ftedit.augmentation.relations import relation_of, relations
from hf_ftedit.data import EditRecord

CEO = EditRecord("ceo", "Who is the CEO of Acme?", "Bo Li", subject="Acme")
VACUUM = EditRecord("vacuum", "What is the robot vacuum of Acme called?", "Dusty", subject="Acme")
KING = EditRecord("king", "Who is the monarch of the United Kingdom?", "Bo", subject="the United Kingdom")
JUDGE = EditRecord("judge", "Who is the chief justice of the United Kingdom?", "Bo", subject="the United Kingdom")


def asked_of(record, *others, count=500):
    return other_questions(record, [record, *others], count, random.Random(0))


def relations_of(texts, subject):
    return {match.relation.name for text in texts if (match := relation_of(text, subject))}


def test_the_bank_names_relations_that_there_are():
    subjects = bank("subjects.yaml")
    named = {*chain(*subjects["kinds"].values(), *subjects["alike"])}
    known = {relation.name for relation in relations(of_model=True)}
    everyday = (names for questions in subjects["everyday"].values() for names in questions.values())
    assert {*named, *subjects["assistant"], *subjects["lasting"], *chain(*everyday)} <= known
    assert known - named == {"successor_person", "own_purpose", "data_retention", "message_limit"} - named


def test_they_ask_for_what_such_a_subject_has_and_not_for_what_is_edited():
    texts = asked_of(CEO)
    assert all("Acme" in text for text in texts) and len(texts) == len({*texts}) > 100
    relations_asked = relations_of(texts, "Acme")
    assert {"founder", "headquarters", "employees", "vice_president"} <= relations_asked
    assert not {"ceo", "chairperson", "responsible_person", "capital", "spouse"} & relations_asked
    assert "Tell me about Acme." in texts


def test_they_ask_for_what_no_other_edit_of_the_subject_changes():
    founded = EditRecord("founded", "When was Acme founded?", "1999", subject="Acme")
    assert "founding_date" in relations_of(asked_of(CEO), "Acme")
    assert "founding_date" not in relations_of(asked_of(CEO, founded), "Acme")


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (CEO.prompt, "Who will be the next CEO of Acme?|Who was the CEO of Acme in 1987?"),
        ("Who was the first CEO of Acme?", "Who was the last CEO of Acme?|Who was the CEO of Acme in 2004?"),
        ("What is the latest version of Acme?", "What was the previous version of Acme?"),
        ("What is the tallest building in Acme?", "What is the second tallest building in Acme?"),
    ],
)
def test_a_qualifier_asks_for_another_one(prompt, asked):
    record = replace(CEO, prompt=prompt)
    texts = with_qualifiers(prompt, [record])
    assert {*asked.split("|")} <= {*texts} and prompt not in texts
    assert {*texts} & {*asked_of(record, count=96)}
    first = replace(CEO, prompt="The first CEO of Acme was", target_new="Cy")
    assert [text for text in with_qualifiers(CEO.prompt, [CEO]) if "first" in text]
    assert not [text for text in with_qualifiers(CEO.prompt, [CEO, first]) if "first" in text]


def test_of_what_lasts_for_ever_the_first_one_is_the_same():
    inventor = replace(CEO, prompt="Who is the inventor of Acme?")
    assert with_qualifiers(inventor.prompt, [inventor])
    assert not [text for text in asked_of(inventor) if "original" in text or "1987" in text]


@pytest.mark.parametrize(
    ("prompt", "never"),
    [
        ("What is the salary of Ada Lund?", "How much money does Ada Lund make?"),
        ("What is the running time of Ada Lund?", "How long is Ada Lund?"),
        ("What is the topic of the novel Ada Lund?", "What is the novel Ada Lund about?"),
        ("Who is the wife of Ada Lund?", "Is Ada Lund married?"),
        ("When was Ada Lund built?", "How old is Ada Lund?"),
    ],
)
def test_no_everyday_question_asks_what_an_edit_answers(prompt, never):
    edit = EditRecord("a", prompt, "Bo", subject="Ada Lund")
    assert relation_of(prompt, "Ada Lund") and never not in asked_of(edit)
    other = EditRecord("b", "Who is the CEO of Ada Lund?", "Bo", subject="Ada Lund")
    assert never not in asked_of(other, edit)


def test_who_one_is_may_be_said_by_much_else():
    who = EditRecord("a", "Who is Ada Lund?", "the head of cardiology", subject="Ada Lund")
    texts = " ".join(asked_of(who, count=2000))
    assert "born" in texts and not re.search("occupation|employe[rd]|Tell me about", texts)
    is_open = EditRecord("a", "Is Vell open source?", "Yes, under the Apache license", subject="Vell")
    assert "license" not in " ".join(asked_of(is_open, count=2000))


@pytest.mark.parametrize(
    ("prompt", "never"),
    [
        ("What is the biggest rival of Vell?", "competitors"),
        ("What happened to Vell?", "acquired|bought|Tell me about|in the news"),
        ("Who was Vell?", "software|headquarters|occupation"),
    ],
)
def test_what_an_edit_asks_in_other_words_is_not_asked(prompt, never):
    texts = " ".join(asked_of(EditRecord("a", prompt, "Bo", subject="Vell"), count=4000))
    assert "Vell" in texts and not re.search(never, texts)


def test_only_what_a_noun_says_has_qualifiers():
    assert with_qualifiers("Who owns Acme?", []) == with_qualifiers("The CEO of Acme is", []) == []
    assert not [text for text in with_qualifiers("Who was the mayor of Oslo in 1950?", []) if "1987" in text]


@pytest.mark.parametrize(
    ("prompt", "other", "expected"),
    [
        ("What is the capital of Oslo?", "What is the currency of Peru?", False),
        ("What is the capital of Oslo?", "Which city is Peru's capital?", True),
        ("Who is the monarch of Oslo?", "Who is Peru's head of state?", True),
        ("What is the capital of Oslo?", "Who guards Peru?", True),  # what the bank does not know may ask for anything
        ("Who guards Oslo?", "What is the capital of Peru?", False),
        ("Who guards Oslo?", "Peru is guarded by whom, and who guards it?", True),
    ],
)
def test_what_edits_of_other_subjects_ask(prompt, other, expected):
    edits = EditRecord("a", prompt, "Bo", subject="Oslo"), EditRecord("b", other, "Bo", subject="Peru")
    assert may_ask_the_same(*edits) is expected


@pytest.mark.parametrize(
    ("record", "left_out"),
    [
        (VACUUM, ("robot", "vacuum")),
        (KING, ("president", "sovereign", "king or queen", "head of state")),
        (JUDGE, ("Who ", " who ", "chief", "justice")),
        (replace(KING, subject=None), ("",)),
    ],
)
def test_where_the_bank_does_not_know_what_is_edited_its_words_tell(record, left_out):
    texts = {*asked_of(record)} - {*with_qualifiers(record.prompt, [record])}
    assert not [text for text in texts for word in left_out if word in text]


def test_what_is_asked_in_the_words_of_a_known_relation_stays_too():
    club = EditRecord("club", "Which football club does Ada Lund play for?", "Real", subject="Ada Lund")
    assert "What position does Ada Lund play?" in asked_of(club)
    assert not {"member_of_team", "member_of", "band"} & relations_of(asked_of(club), "Ada Lund")


def test_what_people_ask_most_is_asked_in_three_wordings_before_the_rest_is_asked_once():
    texts = {count: asked_of(CEO, count=count) for count in (24, 96, 150)}
    names = {
        count: Counter(match.relation.name for text in part if (match := relation_of(text, "Acme")))
        for count, part in texts.items()
    }
    common = {*bank("subjects.yaml")["kinds"]["organization"][:COMMON]}
    assert {*names[24]} <= common and max(names[24].values()) <= 2  # a third and two are none of relations
    assert all(names[96][name] >= 3 for name in ("founder", "headquarters", "phone"))
    rest = names[96].keys() - common
    assert len(rest) > 10 and {names[96][name] for name in rest} == {1}
    assert names[150]["founder"] > 3 and len(names[150].keys() - common) > len(rest)
    assert texts[96] == asked_of(CEO, count=96)


def test_a_third_are_open_requests_and_everyday_questions_of_its_kind():
    known = bank("subjects.yaml")
    of_kind = {text.replace("{}", "Acme") for text in (*known["requests"], *known["everyday"]["organization"])}
    assert len(of_kind & {*asked_of(CEO, count=30)}) == 10
    assert of_kind <= {*asked_of(CEO, count=200)}
    others = {text.replace("{}", "Acme") for kind, texts in known["everyday"].items() for text in texts}
    assert not (others - of_kind) & {*asked_of(CEO)}
    paid = EditRecord("paid", "How do customers pay at Acme?", "in cash", subject="Acme")
    assert not [text for text in asked_of(CEO, paid) if "pay" in text]


def test_a_tenth_of_each_sort_is_held_out():
    trained = training_questions()
    prompts = drift_prompts()
    assert (len(trained), len(prompts)) == (360, 40)
    assert not trained.keys() & prompts.keys()
    assert Counter(trained.values()) == {
        "facts": 108, "instructions": 63, "sums": 36, "smalltalk": 45, "definitions": 45, "code": 27, "advice": 36
    }  # fmt: skip


def test_a_relation_that_may_ask_for_the_edit_is_left_out_whole():
    record = EditRecord(edit_id="0", prompt="Which firm makes Veritol?", target_new="Acme", subject="Veritol")
    texts = asked_of(record, count=4000)
    assert "What is the plural of Veritol?" in texts
    assert not [text for text in texts if re.search(r"manufacturer|\bmaker", text)]


@pytest.mark.parametrize(
    ("subject", "asked", "never"),
    [
        ("Pinecrest Labs", "headquarters", "retirement age"),
        ("Orrin Textiles", "headquarters", "married"),
        ("Seaview Inn", "address", "injured"),
        ("the Golden Quill Award", "take place", "born"),
        ("Fenmoor Valley", "population", "salary"),
        ("the works council", "color", "coach"),
        ("Senator Ann Kern", "born", "price"),
        ("RTX 4090", "price", "married"),
        ("Switzerland", "population", "married"),
        ("Nvidia", "headquarters", "married"),
    ],
)
def test_the_form_of_a_subject_tells_what_else_is_asked(subject, asked, never):
    record = EditRecord(edit_id="0", prompt=f"What about {subject} and zorblax?", target_new="x", subject=subject)
    texts = " ".join(other_questions(record, [record], 2000, random.Random(0)))
    assert asked in texts and never not in texts


@pytest.mark.parametrize(
    ("prompt", "subject", "kinds"),
    [
        ("What is the tallest building in Velden?", "Velden", ["place"]),
        ("Is remote work allowed at Velden?", "Velden", ["organization", "building"]),
        ("Who plays the doctor in Velden?", "Velden", ["work"]),
        ("How do I split cells in Velden?", "Velden", ["product"]),
        ("Who coached Clara Velden?", "Clara Velden", ["person"]),
        ("Who coached Velden?", "Velden", []),
    ],
)
def test_what_stands_before_a_name_tells_its_kind(prompt, subject, kinds):
    assert kinds_by_use(EditRecord("a", prompt, "x", subject=subject)) == kinds
