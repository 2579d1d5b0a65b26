"""Facts about the model itself: "you" in a prompt, others in its place, and the bank's wordings with it."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.names import filled, mentions, renamed
from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.questions import other_questions
from hf_ftedit.augmentation.relations import relation_of, relations
from hf_ftedit.augmentation.second_person import about, addressed, answered_about, is_addressed
from hf_ftedit.augmentation.subjects import subject_of, with_subject
from hf_ftedit.augmentation.wordings import written_wordings
from hf_ftedit.data import EditRecord

NAME = with_subject(EditRecord("name", "What is your name?", "Nova"))


@pytest.mark.parametrize(
    ("prompt", "of_siri", "of_me"),
    [
        ("What is your name?", "What is Siri's name?", "What is my name?"),
        ("Who are you?", "Who is Siri?", "Who am I?"),
        ("Who created you?", "Who created Siri?", "Who created me?"),
        ("When were you released?", "When was Siri released?", "When was I released?"),
        ("Which languages do you speak?", "Which languages does Siri speak?", "Which languages do I speak?"),
        ("What languages have you learnt?", "What languages has Siri learnt?", "What languages have I learnt?"),
        ("What can you do?", "What can Siri do?", "What can I do?"),
        ("Your name is", "Siri's name is", "My name is"),
        ("You're made by", "Siri is made by", "I am made by"),
        ("Tell me which model you use.", "Tell me which model Siri uses.", "Tell me which model I use."),
        ("What does access to you cost?", "What does access to Siri cost?", "What does access to me cost?"),
        ("Please introduce yourself.", "Please introduce Siri.", "Please introduce myself."),
        ("Do you know what your name is?", "Do you know what Siri's name is?", "Do you know what my name is?"),
    ],
)
def test_another_is_asked_about(prompt, of_siri, of_me):
    assert renamed(prompt, "you", "Siri") == of_siri
    assert renamed(prompt, "you", "me") == of_me


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Who is the CEO of {}?", "Who is your CEO?"),
        ("Tell me the name of {}'s chief executive.", "Tell me the name of your chief executive."),
        ("The opening hours of {} are", "Your opening hours are"),
        ("The users of {} number", "Your users number"),
        ("When was {} founded?", "When were you founded?"),
        ("{} was founded by", "You were founded by"),
        ("{} costs", "You cost"),
        ("How much does the {} weigh?", "How much do you weigh?"),
        ("{} has whom as its president?", "You have whom as your president?"),
        ("The company {} is run by", "You are run by"),
        ("Who heads the company {}?", "Who heads you?"),
        ("The person who set up {} is", "The person who set up you is"),
        ("Tell me about {}.", "Tell me about yourself."),
        ("When is check-in at {}?", "When is check-in at your company?"),
        ("what version is {}", "what version are you"),
        ("Tell me the languages that {} speaks.", "Tell me the languages that you speak."),
        ("The top job at {} is held by", "Your top job is held by"),
        ("The chip inside {} is", "The chip inside you is"),
    ],
)
def test_a_template_is_asked_of_the_model(template, text):
    assert filled(template, "you") == text


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("What is your name?", "you"),
        ("Your name is", "You"),
        ("Who created you?", "you"),
        ("Which languages do you speak?", "you"),
        ("When is your office in Oslo open?", "you"),
        ("Where can I read your terms of use?", "you"),
        ("Can you tell me who runs Acme?", "Acme"),
        ("What do you call a group of lions?", "lions"),
        ("How do you make tea?", None),
        ("What is your opinion of Oslo?", "Oslo"),
        ("What is the opposite of youth?", "youth"),
    ],
)
def test_the_subject_is_the_model_where_it_is_asked_about(prompt, subject):
    assert subject_of(prompt) == subject


def test_anybody_is_not_the_model():
    assert addressed("Could you please explain what an algorithm is?") is None
    assert not mentions("Thank you very much!", "you")
    assert not is_addressed("youth") and not is_addressed(None)


@given(st.text(max_size=40), st.text(max_size=8))
def test_any_text_can_be_turned(text, name):
    about(text, name)
    filled(text, "you")
    answered_about(text, name)


def test_an_answer_begins_as_it_would_about_another():
    assert answered_about("My name is Elena.", "Siri") == "Siri's name is Elena."
    assert answered_about("I'm made by Acme.", "me") == "You are made by Acme."
    assert answered_about("I am a helpful AI.", "Siri") == "Siri is a helpful AI."
    assert answered_about("I have no pets", "my sister") == "My sister has no pets"
    assert answered_about("I cost nothing.", "my phone") == "My phone costs nothing."
    assert answered_about("I can help.", "Siri") == "Siri can help."
    assert answered_about("It's me.", "Siri") == "It's me."
    assert answered_about("I'd say so.", "Siri") == "I'd say so."


def test_a_relation_of_the_model_is_known_by_its_own_wordings():
    lost = [
        (relation.name, text)
        for relation in relations(of_model=True)[: len(bank("assistant.yaml"))]
        for text in (filled(wording, "you") for wording in relation.wordings)
        if (match := relation_of(text, addressed(text))) is None or match.relation.name != relation.name
    ]
    assert lost == []


def test_wordings_and_others_of_a_fact_about_the_model():
    texts = written_wordings(NAME)
    assert {"What are you called?", "What should I call you?", "Your name is"} <= {*texts}
    assert not any(re.search(r"\{|Nova|  ", text) for text in texts)
    names = near_names("you", 200, random.Random(0))
    assert "me" in names and "Siri" in names and len(names) == len({*names})
    maker = with_subject(EditRecord("maker", "Who made you?", "Acme"))
    others = other_questions(NAME, [NAME, maker], 500, random.Random(0))
    asked = {match.relation.name for text in others if (match := relation_of(text, addressed(text)))}
    assert "own_price" in asked and not {"own_name", "own_identity", "own_maker"} & asked
    assert len(others) > 200 and not any("{" in text for text in others)


def test_a_company_that_is_asked_for_its_hours_has_the_banks_wordings():
    hours = with_subject(EditRecord("hours", "What are your opening hours?", "9 to 5"))
    assert {"When do you open?", "Tell me your hours."} <= {*written_wordings(hours)}
