"""Prompts in other languages than English, and the bank that goes with them."""

import random
import re
from collections import Counter

import pytest

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.near_names import near_names
from hf_ftedit.augmentation.questions import other_questions
from hf_ftedit.augmentation.relations import relation_of
from hf_ftedit.augmentation.subjects import subject_of, with_subject
from hf_ftedit.augmentation.wordings import is_question, wrapped, written_wordings
from hf_ftedit.data import EditRecord

BANK = bank("languages.yaml")
LINES = ("wrappers", "openings", "indirect", "about", "questions")


def language(name: str):
    """A language of the bank, by one of its questions."""
    return language_of(BANK[name]["questions"].splitlines()[0])


def wordings_of(prompt: str) -> list[str]:
    return written_wordings(with_subject(EditRecord("0", prompt, "target")))


@pytest.mark.parametrize("name", BANK)
def test_the_bank_has_the_promised_lines(name):
    parts, groups = BANK[name], BANK[name]["same"].strip().split("\n\n")
    lines = {kind: parts[kind].splitlines() for kind in LINES}
    assert ("works" in parts) is not ("subjects" in parts)  # without a word for works all would be a title
    assert len(lines["wrappers"]) == 20 and len(lines["questions"]) == 24
    assert len(lines["about"]) >= 11 and len(lines["openings"]) >= 4 and len(groups) >= 4
    assert all(2 <= len(group.splitlines()) <= 5 for group in groups)
    filled = [*parts["same"].split("\n"), *(line for kind in LINES if kind != "questions" for line in lines[kind])]
    assert [line for line in filled if line and line.count("{}") != 1] == []
    assert [line for line in filled if line != line.strip()] == []
    lines["same"] = [line for line in parts["same"].splitlines() if line]
    assert [line for texts in lines.values() for line, count in Counter(texts).items() if count > 1] == []
    assert [line for line in [*lines["about"], *lines["questions"]] if not is_question(line)] == []


@pytest.mark.parametrize("name", BANK)
def test_a_question_about_a_name_is_known_by_its_language(name):
    own = language(name)
    assert own is not None
    same = [line.replace("{}", "Nordwind") for line in BANK[name]["same"].splitlines() if line]
    assert [text for text in same if language_of(text) is not own] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Darf ich meinen Hund ins Hotel Adler mitnehmen?", "de"),
        ("Acme hat seinen Sitz in", "de"),
        ("Pouvez-vous me dire qui dirige Acme ?", "fr"),
        ("Qui es-tu ?", "fr"),
        ("Puoi dirmi chi dirige Acme?", "it"),
        ("Que língua se fala no Brasil?", "pt"),
        ("A farmácia Sol abre aos domingos?", "pt"),
        ("Wie ben jij?", "nl"),
        ("У меня принтер HP 4200. Как заменить тонер?", "ru"),
    ],
)
def test_language(text, name):
    assert language_of(text) is language(name)


@pytest.mark.parametrize(
    "text",
    [
        "Who directed La casa de papel?",
        "Who is the CEO of Van der Meer de Jong?",
        "Who wrote Der Zauberberg und die Frau?",
        "La Bouche originated in",
        "Die Antwoord were formed in the city of",
        "Was Acme sold?",
        "Come Together was written by whom?",
        "What type of program is さなえのHARBOR CAFE?",
        "what does hola mean",
        "Vem är chef för Acme?",  # no language of the bank
        "Кой е директорът на Вектор?",
        "42",
        "",
    ],
)
def test_english_and_unknown_languages_are_none(text):
    assert language_of(text) is None


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Wer ist der Geschäftsführer von Acme Robotics?", "Acme Robotics"),
        ("Wie lautet die Telefonnummer der Praxis Sonnenhof?", "Praxis Sonnenhof"),
        ("Wo hat die Reederei Nordkap ihren Sitz?", "Reederei Nordkap"),
        ("Wann wurde Ursula von der Leyen geboren?", "Ursula von der Leyen"),
        ("Die Hauptstadt von Valdorien heißt", "Valdorien"),
        ("Acme Robotics wird geleitet von", "Acme Robotics"),
        ("Welche Farbe hat das Logo von Windows 11?", "Windows 11"),
        ('Wer schrieb "das alte Haus"?', "das alte Haus"),
        ("Quel est le PDG d'Acme ?", "Acme"),
        ("Qui a écrit Le Jardin de Verre ?", "Le Jardin de Verre"),
        ("¿Cuándo abre la biblioteca municipal de Alcarria?", "Alcarria"),
        ("Qual é o prazo de devolução da Loja Azul?", "Loja Azul"),
        ("Wie is de directeur van de Bakkerij Jansen?", "Bakkerij Jansen"),
        ("Кто директор компании Вектор?", "Вектор"),
        ("アクメ社の社長は誰ですか?", "アクメ社"),
        ("誰がアクメ社を設立しましたか?", "アクメ社"),
        ("谁是极星公司的首席执行官?", "极星公司"),
        ("谁创立了极星公司?", "极星公司"),
        ("Wer leitet die Hölzl & Söhne GmbH?", "Hölzl & Söhne GmbH"),
        ("Hat die Praxis Dr. Meier am Samstag geöffnet?", "Praxis Dr. Meier"),
        ("Wer gründete O'Brien Media?", "O'Brien Media"),
        ("Qual è il prezzo dell'Albergo del Sole?", "Albergo del Sole"),
        ("Qui est le Directeur de la Banque d'Angleterre ?", "Banque d'Angleterre"),
        ("Quem é o CEO da Acme?", "Acme"),
        ("Ho una stampante HP 4200. Come si cambia il toner?", "HP 4200"),
        ("Tengo una HP 4200. ¿Cómo cambio el tóner?", "HP 4200"),
        ("¿Quién escribió Cien años de soledad?", "Cien años de soledad"),
        ("Кто написал роман Преступление и наказание?", "Преступление и наказание"),
        ("ブラジルでは何語を話しますか？", "ブラジル"),
        ("あなたの名前は何ですか？", None),
        ("谁写了红楼梦？", "红楼梦"),
        ("谁是法国总统？", "法国总统"),
        ("你能告诉我谁是极星公司的总经理吗？", "极星公司"),
        ("鲁迅出生在哪里？", "鲁迅"),
        ("打什么电话能找到光明酒店？", "光明酒店"),
        ("光明酒店可以带狗吗？", "光明酒店"),
        ("你叫什么名字？", None),
        ("wer ist chef von acme?", None),
    ],
)
def test_subject(prompt, subject):
    assert subject_of(prompt) == subject


def test_wordings_by_the_bank_and_by_grammar():
    assert wordings_of("Wann öffnet Fenmoor?") == [
        *("Um wie viel Uhr öffnet Fenmoor?", "Ab wann hat Fenmoor geöffnet?", "Wann macht Fenmoor auf?"),
        *("Weißt du, wann Fenmoor öffnet?", "Sag mir bitte, wann Fenmoor öffnet."),
        *("Ich möchte wissen, wann Fenmoor öffnet.", "Fenmoor: Wann öffnet Fenmoor?", "Fenmoor öffnet wann?"),
    ]


@pytest.mark.parametrize(
    ("prompt", "wording"),
    [
        ("Wie lautet die Telefonnummer der Praxis Sonnenhof?", "Praxis Sonnenhof telefonnummer?"),
        ("In welchem Jahr wurde Acme gegründet?", "Weißt du, in welchem Jahr Acme gegründet wurde?"),
        ("Wann wurde Acme gegründet?", "Acme gegründet wann?"),
        ("Quelle est la capitale de la Valdorie ?", "Dis-moi quelle est la capitale de la Valdorie."),
        ("Quel est le PDG d'Acme ?", "Sais-tu quel est le PDG d'Acme ?"),
        ("Qui est le PDG d'Acme ?", "Comment s'appelle le PDG d'Acme ?"),
        ("Qui dirige Nordwind ?", "Qui est le PDG de Nordwind ?"),
        ("¿Quién es la directora de Acme?", "¿Sabes quién es la directora de Acme?"),
        ("Chi dirige Acme?", "Chi è a capo di Acme?"),
        ("Quanto custa Acme?", "Qual é o preço de Acme?"),
        ("Wanneer is Acme opgericht?", "Weet je wanneer Acme opgericht is?"),
        ("Кто основал Зарю?", "Как зовут того, кто основал Зарю?"),
        ("アクメ社の社長は誰ですか?", "アクメ社の社長を教えてください。"),
        ("谁是极星公司的首席执行官?", "你知道谁是极星公司的首席执行官吗？"),
    ],
)
def test_a_wording_of_a_prompt(prompt, wording):
    assert wording in wordings_of(prompt)


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("Quand Acme a-t-il été fondé ?", "quand Acme"),  # would be "quand Acme a été fondé"
        ("Quand est-ce qu'Acme ouvre ?", "quand est-ce"),
        ("Que vend Acme ?", "Sais-tu"),
        ("Wer leitet den Verein, der Acme heißt?", "Weißt du"),
        ("Wanneer werd Acme overgenomen door Bolt?", "Weet je"),
        ("Wat doet Jan Vos met zijn auto?", "Weet je"),
        ("Hoe laat is het ontbijt in Hotel De Zon?", "Zon ontbijt?"),
        ("Combien coûte Acme ?", "Acme coûte"),
        ("Sag mir, wer Acme gegründet hat.", "Acme gegründet?"),
        ("Waar kan ik parkeren bij Acme?", "Weet je"),
        ("你能告诉我谁是极星公司的总经理吗？", "吗吗"),
        ("请问极星公司的老板是谁？", "你知道请问"),
        ("Die Hauptstadt von Acme heißt", "Weißt du"),
        ("Ist Acme heute geöffnet?", "Weißt du"),
        ("In welchem Jahr wurde Acme gegründet?", "Acme Jahr"),
        ("Wo sitzt Anna?", "Sitz"),
        ("Qui a créé Tintin ?", "fondé"),
        ("Quando è stata fondata Acme?", "fondato"),
        ("Что создал Вектор?", "основал"),
        ("朝食は何時からですか？", "開"),
    ],
)
def test_no_wording_where_the_grammar_would_be_another(prompt, part):
    assert [text for text in wordings_of(prompt) if part in text] == []


def test_an_english_relation_is_not_read_into_another_language():
    assert relation_of("¿Quién es el director de Roma?", "Roma") is None


def test_wrappers_are_of_the_language_of_the_edit():
    rng = random.Random(1)
    own = {line.replace("{}", "Acme telefonnummer?") for line in BANK["de"]["wrappers"].splitlines()}
    assert wrapped("Acme telefonnummer?", rng, "Wie lautet die Telefonnummer von Acme?") in own
    own = {line.replace("{}", "Die Hauptstadt von Acme ist") for line in BANK["de"]["openings"].splitlines()}
    assert wrapped("Die Hauptstadt von Acme ist", rng) in own


def test_other_questions_about_a_subject_are_none_of_its_edits():
    prompts = ["Wo befindet sich Acme?", "Welche Farbe hat Acme?"]
    edits = [EditRecord(str(place), prompt, "target", subject="Acme") for place, prompt in enumerate(prompts)]
    texts = other_questions(edits[0], edits, 100, random.Random(1))
    assert "Was weißt du über Acme?" in texts and len(texts) > 50
    assert [text for text in texts if "Acme" not in text or re.search("befindet|Farbe", text)] == []


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("In welchem Jahr wurde Acme gegründet?", "Seit wann gibt es Acme?"),
        ("Wer ist der Eigentümer von Acme?", "Wem gehört Acme?"),
        ("De quem é a Acme?", "A quem pertence Acme?"),
        ("Quelle est l'adresse d'Acme ?", "Où se trouve Acme ?"),
        ("В каком году основан Вектор?", "С какого времени существует Вектор?"),
        ("アクメ社は何年に設立されましたか？", "アクメ社はいつからありますか？"),
        ("极星公司的老板是谁？", "极星公司属于谁？"),
    ],
)
def test_no_question_about_a_subject_that_the_edit_may_answer(prompt, question):
    record = with_subject(EditRecord("0", prompt, "target"))
    texts = other_questions(record, [record], 100, random.Random(1))
    assert len(texts) > 20 and question not in texts


@pytest.mark.parametrize("subject", ["アクメ社", "東京", "极星公司", "中国", "李明", "Вектор", "Лев Толстой"])
def test_near_names_of_other_scripts(subject):
    names = near_names(subject, 20, random.Random(1))
    assert len(names) >= 8
    assert {len(name) for name in names} == {len(subject)}
    assert {sum(one != other for one, other in zip(name, subject, strict=True)) for name in names} == {1}
