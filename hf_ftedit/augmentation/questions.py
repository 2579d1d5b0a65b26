"""Questions whose answers must stay: of many kinds, some only to measure drift by, and about an edit's subject."""

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.names import COMPANY, bare, filled, renamed, with_article
from hf_ftedit.augmentation.nouns import YES_NO
from hf_ftedit.augmentation.relations import asked_words, content_words, relation_of, relations
from hf_ftedit.augmentation.second_person import is_addressed
from hf_ftedit.data import WORD, EditRecord
from hf_ftedit.models import asset

_ANSWERS = {"who": "who", "whose": "who", "where": "where", "when": "when", "how": "number"}
# By the form of a subject, what kinds it may be of.
_KINDS = [
    (COMPANY, ["organization"]),
    (re.compile(r"\b(?:Prize|Award|Medal|Cup|League|Festival|Conference)\b"), ["event"]),
    (re.compile(r"\b(?:Lake|River|Mountain|Island|Bay|Valley|County|Province|City|Town|Street|Square)\b"), ["place"]),
    (
        re.compile(
            r"\b(?:Hotel|Inn|Hostel|Resort|Restaurant|Caf[eé]|Pub|Bakery|Hospital|Clinic|Pharmacy|School|College|"
            r"University|Academy|Library|Museum|Gallery|Theat(?:re|er)|Cinema|Zoo|Stadium|Airport|Station|Church|Castle|"
            r"Store|Shop|Gym|Spa)\b"
        ),
        ["organization", "building"],
    ),
    (re.compile(r"^(?:Dr|Mr|Ms|Mrs|Prof|Professor|Senator|Uncle|Aunt|Grandma|Grandpa)\b"), ["person"]),
    (re.compile(r"^(?:(?:the|our|my|an?) )?[a-z][a-z -]*$"), ["product", "building", "event"]),
    (re.compile(r"\b(?:19|20)\d\d$"), ["event"]),
    (re.compile(r"[A-Z].*\d|\d+[A-Z]"), ["product"]),
]
# By what stands before it.
_USES = [
    (re.compile(r".*\b(?:play\w*|star\w*|sings?|sang|character|role|episode|scene|song)\b.* in ", re.I), ["work"]),
    (re.compile(r"how (?:do|can|to)\b.* in ", re.I), ["product"]),
    (re.compile(r"(?:.* )?in ", re.I), ["place"]),
    (re.compile(r"who (?:is|was) ", re.I), ["person"]),
    (re.compile(r"(?:.* )?at (?:the )?", re.I), ["organization", "building"]),
]
_QUALIFIERS = ("first", "second", "third", "previous", "next", "original", "last")
# "Who was the first CEO of {}?" asks for another one than "Who is the CEO of {}?".
_NOUN = re.compile(
    rf"(?P<wh>who|what|which [\w ]+?) (?P<be>is|was|are|were) the "
    rf"(?:(?:{'|'.join(_QUALIFIERS)}|current|present|latest|newest) )?(?P<noun>.+)\?",
    re.I,
)
# What much else may answer too, and what it may tell.
_OPEN = re.compile(r"(?:(?:who|what) (?:is|was|are|were)|what (?:happened to|became of)) (?:the )?\{\}[?.]?", re.I)
_TOLD = frozenset(
    "occupation position_held employer known_for kind_of buyer owner new_name replaced_by dissolved_date end_date "
    "end_of_support death_date cause_of_death".split()
)
COMMON, AGAIN = 14, 3  # so many relations of a kind come in so many wordings before the others
REQUESTS = 3  # every third question is an open one: "Tell me about {}.", "Is {} worth a trip?"
WRAPPED = 5  # so many wrappers has a question in another language than English, for which few are known
QUALIFIED = 12  # every twelfth is the edit's own with another qualifier


def training_questions() -> dict[str, str]:
    """Questions whose answers may be trained to stay as they are, each with its sort, such as `"smalltalk"`."""
    return _questions(held_out=False)


def drift_prompts() -> dict[str, str]:
    """Questions by which the drift of a model is measured, each with its sort; they are never trained on."""
    return _questions(held_out=True)


def follow_ups(prompt: str) -> Sequence[str]:
    """What users say behind the answer to a prompt, in its language."""
    language = language_of(prompt)
    return language.following if language else bank("follow_ups.yaml")


def may_ask_the_same(record: EditRecord, other: EditRecord) -> bool:
    """Tell whether an edit, of another subject maybe, may ask what `record` asks, by the bank or by their words."""
    if asked_words(record) & asked_words(other):
        return True
    own, match = (relation_of(edit.prompt, edit.subject) for edit in (record, other))
    if not own or not match:
        return bool(own)  # whose wordings may be any
    names = {own.relation.name, match.relation.name}
    return len(names) == 1 or any(names <= {*alike} for alike in bank("subjects.yaml")["alike"])


def with_qualifiers(prompt: str, edits: Sequence[EditRecord]) -> list[str]:
    """
    The question for what a noun says, with qualifiers that none of `edits` has; of another question none.

    Example:
        >>> with_qualifiers("Who is the CEO of Acme?", [])[:2]
        ['Who was the first CEO of Acme?', 'Who was the second CEO of Acme?']
    """
    if not (match := _NOUN.fullmatch(prompt)):
        return []
    wh, be, noun = match["wh"], match["be"].lower(), match["noun"]
    if re.match(r"\w{3,}est\b|most\b", noun):  # "the second tallest building"
        texts = {word: f"{wh} {be} the {word} {noun}?" for word in ("second", "third", "fourth")}
    else:
        past = {"is": "was", "are": "were"}.get(be, be)
        texts = {word: f"{wh} {'will be' if word == 'next' else past} the {word} {noun}?" for word in _QUALIFIERS}
        if not re.search(r"\d{4}", noun):
            texts |= {year: f"{wh} {past} the {noun} in {year}?" for year in ("1955", "1987", "2004")}
    own = {word for edit in edits for word in WORD.findall(edit.prompt.casefold())}
    return [text for word, text in texts.items() if word not in own]


def other_questions(record: EditRecord, edits: Sequence[EditRecord], count: int, rng: random.Random) -> list[str]:
    """
    At most `count` questions about the subject of `record` that none of `edits`, all those of this subject, answers.

    They ask for what subjects of its kind have, or those of any kind, where the bank does not know what is edited; a
    third are open requests and everyday questions, and some ask what is edited with a qualifier: "the first CEO".
    """
    if not record.subject or record.subject not in record.prompt:
        return []
    if language := language_of(record.prompt):
        asked_of = (language.questions_about(edit.prompt, record.subject) for edit in edits or [record])
        texts = sorted(set.intersection(*map(set, asked_of)))
        frames = language.wrappers["questions"]
        framed = [frame.replace("{}", text) for text in texts for frame in rng.sample(frames, WRAPPED)]
        return [*rng.sample(texts, len(texts)), *rng.sample(framed, len(framed))][:count]
    known, of_model = bank("subjects.yaml"), is_addressed(record.subject)
    match = relation_of(record.prompt, record.subject)
    matches = [relation_of(edit.prompt, edit.subject) for edit in edits]
    edited = {match.relation.name for match in matches if match}
    is_open = any(_OPEN.fullmatch(renamed(edit.prompt, record.subject, "{}")) for edit in edits)
    is_open = is_open and not record.subject.islower()  # "What is the wifi password?"
    kinds = [] if of_model else _kinds_of(record, edited)
    edited |= _TOLD if is_open else set()
    sorts = [known["kinds"][kind] for kind in kinds] or [known["assistant"]]
    names = {*chain(*sorts)} - edited.union(*(alike for alike in known["alike"] if edited & {*alike}))
    # Where the bank does not know what an edit asks for, its words tell, "robot vacuum", and what answers it: "Who is
    # the monarch of {}?" may ask for the head of state.
    unknown = (edit for edit, relation in zip(edits, matches, strict=True) if not relation)
    own = _with_synonyms(frozenset[str]().union(*map(_told_words, unknown)))
    word = "" if match else next((word for word in record.prompt.casefold().split() if word in _ANSWERS), "")
    own_stems = _stemmed(own)

    def without(words: frozenset[str], texts: Iterable[str]) -> list[str]:
        return [text for text in texts if not words & content_words(text) and word not in text.casefold().split()]

    questions = {
        relation.name: without(own, relation.questions)
        for relation in relations(of_model)
        if relation.name in names
        and relation.answer != _ANSWERS.get(word)
        # One wording with a word of the edit's, "Who makes {}?", and all others may ask the same: "Name its maker".
        and (match or not own_stems & _stems(of_model)[relation.name])
    }
    of_kinds = {text: asks for kind in kinds for text, asks in known["everyday"][kind].items()}
    everyday = [text for text, asks in of_kinds.items() if edited.isdisjoint(asks)]
    open_ones = [*known["requests"], *without(_with_synonyms(frozenset().union(*map(asked_words, edits))), everyday)]
    # What the model says of itself may begin with what is edited.
    open_ones = [] if of_model or is_open else rng.sample(open_ones, min(len(open_ones), count // REQUESTS))
    is_lasting = match and match.relation.name in known["lasting"]
    qualified = [] if is_lasting else with_qualifiers(record.prompt, edits)
    qualified = rng.sample(qualified, min(len(qualified), count // QUALIFIED))
    common = {*chain(*(part[:COMMON] for part in sorts))}
    templates = [*open_ones, *_common_first(questions, common, rng)][: count - len(qualified)]
    phrase = match.phrase if match else with_article(record.subject, record.prompt)
    texts = [*qualified, *(filled(template, phrase) for template in templates)]
    return rng.sample(texts, len(texts))


def _told_words(edit: EditRecord) -> frozenset[str]:
    """Words of what an edit asks, and of its answer where that is "Yes, it is open source."."""
    words = asked_words(edit)
    return words | content_words(edit.target_new) if YES_NO.match(edit.prompt) else words


def _with_synonyms(words: frozenset[str]) -> frozenset[str]:
    """Words, and other single ones of the bank that may stand for them, in all forms that it has."""
    groups = [[word for word in group if " " not in word] for group in bank("synonyms.yaml")["words"]]
    return words.union(*(group for group in groups if _stemmed(words) & _stemmed(group)))


def _common_first(questions: Mapping[str, Sequence[str]], common: set[str], rng: random.Random) -> list[str]:
    """Questions of each relation, one after the other: of `common` ones [`AGAIN`] before one of others."""
    turns = [
        (turn if name in common else turn + AGAIN, text)
        for name, texts in rng.sample([*questions.items()], len(questions))
        for turn, text in enumerate([*texts[:1], *rng.sample(texts[1:], len(texts[1:]))])
    ]
    return [text for _, text in sorted(turns, key=lambda each: each[0])]


def _kinds_of(record: EditRecord, edited: set[str]) -> list[str]:
    """Kinds that have the `edited` relations, most of all, or else that the subject of `record` may be of."""
    kinds, subject = bank("subjects.yaml")["kinds"], record.subject or ""
    for end in (COMMON, None):
        if own := [kind for kind, names in kinds.items() if edited & {*names[:end]}]:
            return own
    by_form = next((own for pattern, own in _KINDS if pattern.search(subject)), [])
    return _known_kinds(subject) or by_form or kinds_by_use(record) or [*kinds]


@lru_cache
def _known_kinds(subject: str) -> list[str]:
    """Kinds that have most of the relations with this subject in the bank."""
    own = {relation.name for relation in relations() if bare(subject) in map(bare, relation.subjects)}
    counts = {kind: len(own & {*names}) for kind, names in bank("subjects.yaml")["kinds"].items()}
    return [kind for kind, count in counts.items() if count == max(counts.values()) and own]


def kinds_by_use(record: EditRecord) -> list[str]:
    """Kinds that a name's first word or what stands before it in its prompt tells; none where neither does."""
    words, before = (record.subject or "").split(), record.prompt.partition(record.subject or " ")[0]
    if len(words) in (2, 3) and words[0] in bank("names.yaml")["words"]["first_names"]:
        return ["person"]
    return next((own for pattern, own in _USES if words and pattern.fullmatch(before)), [])


@lru_cache
def _stems(of_model: bool) -> dict[str, frozenset[str]]:
    """The stems of the words in all wordings of each relation."""
    wordings = {relation.name: relation.wordings for relation in relations(of_model)}
    return {name: _stemmed(chain.from_iterable(map(content_words, texts))) for name, texts in wordings.items()}


def _stemmed(words: Iterable[str]) -> frozenset[str]:
    """Words without the ending of a plural or a verb."""
    return frozenset(re.sub(r"(?:e?s|ed|ing|e)$", "", word) for word in words)


def _questions(*, held_out: bool) -> dict[str, str]:
    rows = map(json.loads, Path(asset("questions.jsonl")).read_text(encoding="utf-8").splitlines())
    # Every tenth: the file is ordered by sort, so that each sort is held out as often as it occurs.
    return {row["prompt"]: row["sort"] for place, row in enumerate(rows) if (place % 10 == 5) is held_out}
