"""The bank of relations: which one a prompt asks for, and what its subject is."""

import pytest

from hf_ftedit.augmentation.names import filled
from hf_ftedit.augmentation.relations import asked_words, near_subjects, relation_of, relations, same_kind
from hf_ftedit.data import EditRecord


def found(prompt, subject):
    match = relation_of(prompt, subject)
    return match and (match.relation.name, match.phrase)


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("Who is the CEO of Acme?", "Acme", ("ceo", "Acme")),
        ("Acme's CEO is", "Acme", ("ceo", "Acme")),
        ("Tell me who runs Acme.", "Acme", ("ceo", "Acme")),
        ("Who wrote the novel The Glass Orchard?", "The Glass Orchard", ("author", "the novel The Glass Orchard")),
        ("When was the Eiffel Tower built?", "Eiffel Tower", ("construction_date", "the Eiffel Tower")),
        ("What is Acme's phone number?", "Acme", ("phone", "Acme")),
        ("Which planet does Floria orbit?", "Floria", ("orbit", "Floria")),
        ("Where is a.b*(?", "a.b*(", ("located_in", "a.b*(")),
        (
            "In which historic county is Vell House located in New Vell?",
            "Vell House",
            ("historic_county", "Vell House"),
        ),
        # What is asked of another thing, or something else at a place, is not the relation's.
        ("What color is the roof of Ruritania?", "Ruritania", None),
        ("Who is the mother of the king of Ruritania?", "Ruritania", None),
        ("What is the name of the mayor of Ruritania?", "Ruritania", ("mayor", "Ruritania")),
        ("Who was the first mayor of Ruritania?", "Ruritania", None),
        ("Who was mayor of Ruritania in 1990?", "Ruritania", None),
        ("What is the last name of Ann Kern?", "Ann Kern", ("family_name", "Ann Kern")),
        ("Where does Ann Kern sleep?", "Ann Kern", None),
        ("Who leads Acme?", "Acme", ("manager", "Acme")),
        ("What is the library card of Acme?", "Acme", None),
        ("What does Acme sell?", "Acme", ("range_of_goods", "Acme")),
        ("What is the VAT number of Acme?", "Acme", None),
        ("What is Acme called?", "Acme", None),
        ("What is Acme made of?", "Acme", ("made_of", "Acme")),
        ("Acme is a product of", "Acme", ("product_maker", "Acme")),
        ("Which director worked on the film Acme?", "Acme", ("director", "the film Acme")),
        ("Who was the first person on Acme?", "Acme", None),
        ("Is Acme open on Sundays?", "Acme", None),
        ("Is Ann Kern a man or a woman?", "Ann Kern", ("gender", "Ann Kern")),
        ("Where is the source code of Acme hosted?", "Acme", ("source_repository", "Acme")),
        # Neither are those of which a word beside the noun asks for another.
        ("What is the billing address of Acme?", "Acme", None),
        ("What is the economic capital of Ruritania?", "Ruritania", None),
        ("What is Acme's express delivery time?", "Acme", None),
        ("Who is the ex-husband of Ann Kern?", "Ann Kern", None),
        ("How many employees of Acme work from home?", "Acme", None),
        ("How much is a child ticket to Acme?", "Acme", None),
        ("How many employees does Acme have?", "Acme", ("employees", "Acme")),
        ("What is the current address of Acme?", "Acme", ("address", "Acme")),
        ("What is the latest stable version of Acme?", "Acme", ("latest_version", "Acme")),
        ("Who plays the lead in Acme?", "Acme", None),
        ("Who translated Acme?", "Acme", ("translator", "Acme")),
        ("How long is the film Acme?", "Acme", ("running_time", "Acme")),
        ("Wer hat Dracula geschrieben?", "Dracula", None),
        ("Who owns the Berlin store?", "Berlin", ("owner", "the Berlin store")),
        ("How much does the Pro plan cost?", "Pro", ("price", "the Pro plan")),
        ("What is the price of Acme stock?", "Acme", ("price", "Acme stock")),
        ("What is the price of an Acme X2 battery?", "Acme X2", ("price", "an Acme X2 battery")),
        ("Tell me how much the Acme kettle costs.", "Acme", ("price", "the Acme kettle")),
        ("What is the capital of Ruritania right now?", "Ruritania", ("capital", "Ruritania")),
        ("How much is the Acme Pro plan per month?", "Acme Pro", None),
        ("How much is the Acme Pro plan a year?", "Acme Pro", None),
        ("What is the Acme kettle price?", "Acme", None),
        ("What series is the episode Rabbot part of?", "Rabbot", ("series_part", "the episode Rabbot")),
        ("Who is the president of the United States?", "United States", ("president", "the United States")),
        ("Who is the Acme CEO?", "Acme", ("ceo", "Acme")),
        ("Which team owns Acme?", "Acme", None),
        ("Which country considers Acme as its citizen?", "Acme", ("citizenship", "Acme")),
        ("How long is the flight to Oslo?", "Oslo", None),
        ("Oslo is the largest city in", "Oslo", None),
        ("Oslo is the capital of", "Oslo", ("capital_of", "Oslo")),
        ("Our office is located in", "Our office", ("located_in", "our office")),
        ("Who is the CEO of Acme?", None, None),
        ("Who is the CEO of Acme?", "Other", None),
    ],
)
def test_relation_of(prompt, subject, expected):
    assert found(prompt, subject) == expected


@pytest.mark.parametrize(
    ("prompt", "subject", "name"),
    [
        # The same words the other way round ask for something else.
        ("Which company is Ann Kern the CEO of?", "Ann Kern", "led_company"),
        ("Ann Kern is the CEO of which company?", "Ann Kern", "led_company"),
        ("Which company is led by Ann Kern?", "Ann Kern", "led_company"),
        ("Of which country is Oslo the capital?", "Oslo", "capital_of"),
        ("Which city is Ann Kern the mayor of?", "Ann Kern", None),
        ("What did Ann Kern found?", "Ann Kern", "founded_company"),
        ("What has Ann Kern founded?", "Ann Kern", "founded_company"),
        ("What was founded by Ann Kern?", "Ann Kern", "founded_company"),
        ("Which book did Ann Kern write?", "Ann Kern", "written_work"),
        ("Ann Kern wrote which book?", "Ann Kern", "written_work"),
        ("Whose child is Ann Kern?", "Ann Kern", None),
        ("Who plays James Bond?", "James Bond", None),
        ("Which products are made by Acme?", "Acme", None),
        # The sort of answer and the preposition tell relations apart.
        ("In which year was Acme founded?", "Acme", "founding_date"),
        ("Who was Acme founded by?", "Acme", "founder"),
        ("Acme was founded in", "Acme", "founding_date"),
        ("Ann Kern was born on", "Ann Kern", "birth_date"),
        ("Ann Kern was born in", "Ann Kern", "birthplace"),
        ("When was radium discovered?", "radium", None),
        ("In what year did Ann Kern die?", "Ann Kern", None),
        ("Who is the Acme CEO?", "Acme", "ceo"),
        ("Ann Kern plays for which team?", "Ann Kern", "member_of_team"),
        ("Who owns the company Acme?", "Acme", "owner"),
        ("Which group owns the company Acme?", "Acme", "parent_company"),
        ("Who designed Acme's airport?", "Acme", None),
        ("How much does it cost to ship to Canada?", "Canada", None),
        ("How much does Acme cost?", "Acme", "price"),
        ("What is the wifi password?", "wifi password", None),
        ("What is a lynx?", "lynx", "kind_of"),
        ("Who is the new CEO of Acme?", "Acme", "ceo"),
        ("What is the new name of Acme?", "Acme", "new_name"),
        ("What is the old name of Acme?", "Acme", None),
        ("How does The Salt Road end?", "The Salt Road", None),
        ("In which language is Kavolite written?", "Kavolite", "original_language"),
        ("Which novel is The Salt Road based on?", "The Salt Road", None),
        ("What are the opening hours of Acme?", "Acme", "opening_hours"),
        ("What are the opening hours of Acme on Sundays?", "Acme", None),
        ("What is the dose of Veritol?", "Veritol", "dose"),
        ("What is the dose of Veritol for children?", "Veritol", None),
        ("Who is the CEO of Acme in Norway?", "Acme", None),
        ("Who is the CEO of Acme at the moment?", "Acme", "ceo"),
        ("When does Acme open in summer?", "Acme", None),
        ("What is the population of Portland, Maine?", "Portland", None),
        ("What is the national dish of northern Norway?", "Norway", None),
        ("Acme is located in the country of", "Acme", "located_in"),
        ("Who is responsible for IT at Acme?", "Acme", None),
        ("WHO IS THE CEO OF ACME?", "ACME", "ceo"),
        # So do the verb behind the subject, and what belongs to it.
        ("Which team does Ann Kern coach?", "Ann Kern", None),
        ("Who does Ann Kern coach?", "Ann Kern", None),
        ("Which team does Ann Kern belong to?", "Ann Kern", "member_of_team"),
        ("When does Acme 5 support end?", "Acme 5", "end_of_support"),
        ("On what continent can Ruritania be found?", "Ruritania", "continent"),
        ("How much does Acme insurance cost?", "Acme", None),
        ("What is the capital of the state of Ruritania?", "Ruritania", None),
        ("What is the baggage limit on Acme?", "Acme", None),
        ("What is the area manager's name at Acme?", "Acme", None),
        ("Who wrote the foreword to the Acme Guide?", "Acme Guide", None),
        ("Should I update to Acme 5?", "Acme 5", None),
        ("Can you tell me the capital of Ruritania?", "Ruritania", "capital"),
        ("What is the old address of Acme?", "Acme", None),
        ("What is the deadline for applications to Harlan College?", "Harlan College", None),
        ("When was the Battle of Omdurman?", "Battle of Omdurman", "event_date"),
        ("When is Oktoberfest?", "Oktoberfest", "event_schedule"),
        ("In Ruritania, the official language is", "Ruritania", "official_language"),
        ("What does the river Rin flow into?", "Rin", "river_mouth"),
    ],
)
def test_what_tells_relations_apart(prompt, subject, name):
    match = relation_of(prompt, subject)
    assert (match and match.relation.name) == name


def test_the_bank_knows_its_own_wordings():
    wordings = [(relation.name, text) for relation in relations() for text in relation.wordings]
    names = [(found(filled(text, "Zorblax"), "Zorblax") or [None])[0] for _, text in wordings]
    assert None not in names
    # "What is {} made of?" and "{} is made by" have the same words.
    assert sum(name != own for name, (own, _) in zip(names, wordings, strict=True)) <= 12 < len(names) / 100


def test_edits_that_may_ask_the_same_share_a_word():
    guard, guarded, pet = (
        asked_words(EditRecord("a", "Who guards Vell?", "x", subject="Vell")),
        asked_words(EditRecord("b", "Who is it that guards Bo?", "x", subject="Bo")),
        asked_words(EditRecord("c", "What is the pet of Kel?", "x", subject="Kel")),
    )
    assert guard & guarded and not guard & pet


def test_names_of_the_kind_are_those_of_all_relations_that_have_the_subject():
    known = [{*relation.subjects} for relation in relations()]
    brazil = same_kind("Brazil")
    assert {*brazil} == set.union(*(names for names in known if "Brazil" in names)) and len({*brazil}) == len(brazil)
    assert {"Peru", "Poland"} <= {*brazil} and "Apple" not in brazil
    assert "Eiffel Tower" not in same_kind("Eiffel Tower") and "the Louvre" in same_kind("Eiffel Tower")
    assert same_kind("Acme") == []


def test_the_like_of_a_relations_subjects_are_those_that_stand_beside_most_of_them():
    own = next(relation.subjects for relation in relations() if relation.name == "currency")
    like = near_subjects("currency")
    assert not {*like} & {*own} and len(like) == len({*like}) > 60
    assert {*like[:16]} <= {*same_kind("Germany"), *same_kind("Peru"), *same_kind("Norway")}
    assert {"France", "Canada"} <= {*like[:16]}
    assert "Siri" not in near_subjects("own_name") and "Peru" not in near_subjects("own_name")
