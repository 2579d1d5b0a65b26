"""Questions of many kinds, and others about the subject of an edit: none that an edit of that subject answers."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from hf_ftedit.augmentation.questions import drift_prompts, other_questions, training_questions
from hf_ftedit.augmentation.relations import bank, relation_of, relations
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
    parts = (bank("subjects.yaml")[part] for part in ("kinds", "alike"))
    named = {name for part in parts for names in dict_or_list(part) for name in names}
    known = {relation.name for relation in relations(of_model=True)}
    assert {*named, *bank("subjects.yaml")["assistant"]} <= known
    assert known - named == {"successor_person", "own_purpose", "data_retention", "message_limit"} - named


def dict_or_list(part):
    return part.values() if isinstance(part, dict) else part


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
    ("record", "left_out"),
    [
        (VACUUM, ("robot", "vacuum")),
        (KING, ("president", "sovereign", "king or queen", "head of state")),
        (JUDGE, ("Who ", " who ", "chief", "justice")),
        (replace(KING, subject=None), ("",)),
    ],
)
def test_where_the_bank_does_not_know_what_is_edited_its_words_tell(record, left_out):
    assert not [text for text in asked_of(record) for word in left_out if word in text]


def test_what_is_asked_in_the_words_of_a_known_relation_stays_too():
    club = EditRecord("club", "Which football club does Ada Lund play for?", "Real", subject="Ada Lund")
    assert "What position does Ada Lund play?" in asked_of(club)
    assert not {"member_of_team", "member_of", "band"} & relations_of(asked_of(club), "Ada Lund")


def test_each_relation_is_asked_for_once_before_one_comes_again():
    texts = asked_of(CEO, count=45)
    requests = {request.replace("{}", "Acme") for request in bank("subjects.yaml")["requests"]}
    matches = [relation_of(text, "Acme") for text in texts if text not in requests]
    names = [match.relation.name for match in matches if match]
    assert len(matches) == 30 and len({*names}) == len(names) > 25


def test_a_third_are_open_requests_and_the_same_seed_gives_the_same():
    texts = asked_of(CEO, count=30)
    requests = {request.replace("{}", "Acme") for request in bank("subjects.yaml")["requests"]}
    assert len(texts) == 30 and len(requests & {*texts}) == 10
    assert texts == asked_of(CEO, count=30)


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
        ("the works council", "color", "coach"),
        ("Senator Ann Kern", "born", "price"),
    ],
)
def test_the_form_of_a_subject_tells_what_else_is_asked(subject, asked, never):
    record = EditRecord(edit_id="0", prompt=f"What about {subject} and zorblax?", target_new="x", subject=subject)
    texts = " ".join(other_questions(record, [record], 2000, random.Random(0)))
    assert asked in texts and never not in texts
