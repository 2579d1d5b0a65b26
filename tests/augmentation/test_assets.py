import json
import re
from collections import Counter
from importlib.resources import files

import pytest
import yaml

ASSETS = files("hf_ftedit") / "assets"
NAMES = ("questions.jsonl", "relations.yaml", "assistant.yaml", "wrappers.yaml", "names.yaml", "synonyms.yaml")
SORTS = {
    "facts": 120, "instructions": 70, "sums": 40, "smalltalk": 50, "definitions": 50, "code": 30, "advice": 40
}  # fmt: skip
WORDS = {"first_names": 120, "last_names": 160, "company": 60, "place": 60, "works": 60}


def text(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


QUESTIONS = [json.loads(line) for line in text("questions.jsonl").splitlines()]
BANKS = [yaml.safe_load(text(name)) for name in ("relations.yaml", "assistant.yaml")]
RELATIONS = [relation for bank in BANKS for relation in bank]
WRAPPERS = yaml.safe_load(text("wrappers.yaml"))
NEAR_WORDS = yaml.safe_load(text("names.yaml"))["words"]


def plain(wording: str) -> str:
    """The wording without case and punctuation, so that trivial variants are equal."""
    return " ".join(re.findall(r"[\w{}+*/=-]+", wording.casefold()))


def repeated(items: list[str]) -> list[str]:
    return [item for item, count in Counter(map(plain, items)).items() if count > 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_clean_text(name):
    lines = text(name).split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if line != line.rstrip() or "\t" in line or "\r" in line] == []
    assert [line for line in lines if re.search("[^\x20-\u024f]", line)] == []  # Latin letters only


def test_all_is_small():
    assert sum(len(text(name).encode()) for name in NAMES) < 250_000


def test_questions_are_many_of_each_sort_and_differ():
    assert all(list(question) == ["sort", "prompt"] for question in QUESTIONS)
    assert Counter(question["sort"] for question in QUESTIONS) == SORTS
    prompts = [question["prompt"] for question in QUESTIONS]
    assert repeated(prompts) == []
    assert [prompt for prompt in prompts if not 3 <= len(prompt.split()) <= 40] == []


def test_relations_have_the_promised_fields_and_numbers():
    assert len(RELATIONS) >= 90
    assert repeated([relation["name"] for relation in RELATIONS]) == []
    for relation in RELATIONS:
        name = relation["name"]
        assert list(relation) == ["name", "answer", "questions", "statements", "subjects"], name
        assert re.fullmatch("[a-z]+(_[a-z]+)*", name)
        assert relation["answer"] in ("who", "what", "where", "when", "number"), name
        assert 8 <= len(relation["questions"]) <= 14 and 4 <= len(relation["statements"]) <= 8, name
        assert len(relation["subjects"]) == 16 and repeated(relation["subjects"]) == [], name
        assert all(type(subject) is str and subject == subject.strip() for subject in relation["subjects"]), name


def test_each_template_has_one_place_for_the_subject_and_stands_once_in_the_bank():
    for bank in BANKS:
        templates = [wording for relation in bank for wording in relation["questions"] + relation["statements"]]
        assert [template for template in templates if re.findall("[{}]+", template) != ["{}"]] == []
        assert repeated(templates) == []


def test_statements_are_openings():
    statements = [statement for relation in RELATIONS for statement in relation["statements"]]
    assert [statement for statement in statements if statement[-1] in ".?!:,"] == []


def test_wrappers_have_one_place_for_the_question():
    assert {kind: len(wrappers) for kind, wrappers in WRAPPERS.items()} == {"questions": 40, "statements": 20}
    wrappers = WRAPPERS["questions"] + WRAPPERS["statements"]
    assert [wrapper for wrapper in wrappers if re.findall("[{}]+", wrapper) != ["{}"]] == []
    assert repeated(wrappers) == []


def test_near_words_are_single_words():
    assert {kind: len(words) for kind, words in NEAR_WORDS.items()} == WORDS
    for kind, words in NEAR_WORDS.items():
        assert repeated(words) == [], kind
        assert [word for word in words if type(word) is not str or not word.isalpha()] == [], kind


def test_no_question_asks_a_relation_of_one_of_its_subjects():
    filled = {
        plain(template.format(subject))
        for relation in RELATIONS
        for template in relation["questions"] + relation["statements"]
        for subject in relation["subjects"]
    }
    assert [question["prompt"] for question in QUESTIONS if plain(question["prompt"]) in filled] == []
