"""Wordings without a model, and everyday wrappers."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.augmentation.wordings import is_question, wrapped, written_wordings
from hf_ftedit.data import EditRecord


def record(prompt, subject=None, **fields):
    return EditRecord("a", prompt, "Bo", subject=subject, **fields)


def test_the_banks_and_the_grammars_take_turns():
    texts = written_wordings(record("Who is the CEO of Acme?", "Acme"))
    assert texts[:3] == ["Who is Acme's CEO?", "Acme's CEO is who?", "Do you know who runs Acme?"]
    assert "The CEO of Acme is" in texts and len(texts) > 15
    assert len({*texts}) == len(texts) and "Who is the CEO of Acme?" not in texts
    assert all("Acme" in text for text in texts)


def test_what_the_bank_does_not_know_is_put_in_other_words():
    texts = written_wordings(replace(record("When do kids feed Kel?", "Kel"), target_new="on Mondays"))
    assert texts[:2] == ["On which day do kids feed Kel?", "kids feed Kel when?"]
    assert {"When do children feed Kel?", "Kel kids feed when?"} <= {*texts}


def test_an_answer_of_another_kind_is_no_answer_of_the_relation():
    break_ = replace(record("How long is the lunch break?", "lunch break"), target_new="45 minutes")
    assert written_wordings(break_)[0] == "How many minutes is the lunch break?"
    assert not any("mile" in text or "km" in text for text in written_wordings(break_))
    assert any("mile" in text for text in written_wordings(replace(break_, target_new="45 miles")))


def test_an_abbreviation_at_the_end_has_one_full_stop():
    texts = written_wordings(record("Who is the mayor of Washington, D.C.?", "Washington, D.C."))
    assert "Tell me who the mayor of Washington, D.C. is." in texts and "Name the mayor of Washington, D.C." in texts


def test_a_program_is_not_written_in_a_language_that_people_speak():
    novel = replace(record("What language is Vell written in?", "Vell"), target_new="Swedish")
    assert any("translated" in text for text in written_wordings(novel))
    assert not any("translated" in text for text in written_wordings(replace(novel, target_new="Rust")))


def test_what_is_to_come_is_not_over():
    texts = written_wordings(record("Where will the Vell Games take place?", "Vell Games"))
    assert "Name the place of the Vell Games." in texts and not any("did" in text or "was" in text for text in texts)


def test_an_opening_has_openings_too():
    texts = written_wordings(record("The CEO of Acme is", "Acme"))
    assert texts[:2] == ["Who is Acme's CEO?", "Acme is led by"] and not is_question(texts[1])


def test_the_article_and_noun_of_a_subject_go_with_it():
    assert "Name the year in which the Eiffel Tower was finished." not in written_wordings(record("?", "Eiffel Tower"))
    texts = written_wordings(record("When was the Eiffel Tower built?", "Eiffel Tower"))
    assert texts and all("the Eiffel Tower" in text or text.startswith("The Eiffel Tower") for text in texts)
    novel = written_wordings(record("Who wrote the novel Vell?", "Vell"))
    assert novel and all("novel Vell" in text for text in novel)


def test_an_opening_does_not_say_the_first_word_of_the_answer():
    asked = record("When does Acme open?", "Acme")
    assert "Acme is open from" in written_wordings(replace(asked, target_new="noon to six"))
    assert "Acme is open from" not in written_wordings(replace(asked, target_new="at noon"))


def test_wordings_of_the_edit_are_no_others():
    given = written_wordings(record("Who is the CEO of Acme?", "Acme"))[:4]
    assert not {*given} & {*written_wordings(record("Who is the CEO of Acme?", "Acme", wordings=tuple(given)))}


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who leads Acme?", None),
        ("Kuka johtaa Acmea?", "Acmea"),
        ("Zorb the Acme", "Acme"),
        ("?", "?"),
    ],
)
def test_unknown_prompts_have_none(prompt, subject):
    assert written_wordings(record(prompt, subject)) == []


@given(st.text(min_size=1, max_size=20), st.integers())
def test_wrappers_hold_the_text_as_it_is(text, seed):
    assert text in wrapped(text, random.Random(seed)) != text


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Who is it?", True),
        ("Name the boss of Acme.", True),
        ("who is the boss of acme", True),
        ("中国的首都是哪里？", True),
        ("The CEO of Acme is", False),
        ("Whoever runs Acme", False),
        ("", False),
    ],
)
def test_questions_and_openings(text, question):
    assert is_question(text) is question


def test_openings_have_wrappers_of_their_own():
    rng = random.Random(0)
    openings = {wrapped("Rome is in", rng) for _ in range(300)}
    questions = {wrapped("Where is Rome?", rng) for _ in range(600)}
    assert (len(openings), len(questions)) == (20, 40)
