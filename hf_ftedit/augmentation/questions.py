"""Questions whose answers must stay: of many kinds, some only to measure drift by, and about an edit's subject."""

import json
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, islice, zip_longest
from pathlib import Path

from hf_ftedit.augmentation.names import COMPANY, filled, with_article
from hf_ftedit.augmentation.relations import asked_words, bank, content_words, relation_of, relations
from hf_ftedit.augmentation.second_person import is_addressed
from hf_ftedit.data import EditRecord
from hf_ftedit.models import asset

_ANSWERS = {"who": "who", "whose": "who", "where": "where", "when": "when", "how": "number"}
# By the form of a subject, what kinds it may be of.
_KINDS = [
    (COMPANY, ["organization"]),
    (re.compile(r"^(?:Dr|Mr|Ms|Mrs|Prof|Professor|Senator|Uncle|Aunt|Grandma|Grandpa)\b"), ["person"]),
    (re.compile(r"^(?:(?:the|our|my|an?) )?[a-z][a-z -]*$"), ["product", "building", "event"]),
    (re.compile(r"\b(?=\w*[A-Z])\w*\d"), ["product"]),
]
REQUESTS = 3  # every third question is an open request: "Tell me about {}."


def training_questions() -> dict[str, str]:
    """Questions whose answers may be trained to stay as they are, each with its sort, such as `"smalltalk"`."""
    return _questions(held_out=False)


def drift_prompts() -> dict[str, str]:
    """Questions by which the drift of a model is measured, each with its sort; they are never trained on."""
    return _questions(held_out=True)


def other_questions(record: EditRecord, edits: Sequence[EditRecord], count: int, rng: random.Random) -> list[str]:
    """
    At most `count` questions about the subject of `record` that none of `edits`, all those of this subject, answers.

    They ask for what subjects of its kind have, or those of any kind, where the bank does not know what is edited.
    """
    if not record.subject or record.subject not in record.prompt:
        return []
    match = relation_of(record.prompt, record.subject)
    matches = [relation_of(edit.prompt, edit.subject) for edit in edits]
    edited, known = {match.relation.name for match in matches if match}, bank("subjects.yaml")
    of_model = is_addressed(record.subject)
    kinds = [names for names in known["kinds"].values() if edited & {*names}]
    kinds = kinds or [known["kinds"][kind] for kind in _kinds_of(record.subject, [*known["kinds"]])]
    kinds = [known["assistant"]] if of_model else kinds
    left_out = edited.union(*(names for names in known["alike"] if edited & {*names}))
    names = {name for kind in kinds for name in kind} - left_out
    # Where the bank does not know what an edit asks for, its words tell, "robot vacuum", and what answers it: "Who is
    # the monarch of {}?" may ask for the head of state.
    unknown = (edit for edit, relation in zip(edits, matches, strict=True) if not relation)
    own = frozenset[str]().union(*map(asked_words, unknown))
    kind = "" if match else next((word for word in record.prompt.casefold().split() if word in _ANSWERS), "")
    stems = {*map(_stem, own)}
    questions = [
        [text for text in relation.questions if not own & content_words(text) and kind not in text.casefold().split()]
        for relation in relations(of_model)
        if relation.name in names
        and relation.answer != _ANSWERS.get(kind)
        # One wording with a word of the edit's, "Who makes {}?", and all others may ask the same: "Name its maker".
        and (match or not stems & _stems(of_model)[relation.name])
    ]
    # What the model says of itself may begin with what is edited.
    requests = [] if of_model else rng.sample(known["requests"], min(len(known["requests"]), count // REQUESTS))
    # Each relation once before one comes again, as any may be asked.
    in_turns = chain(*zip_longest(*(rng.sample(texts, len(texts)) for texts in rng.sample(questions, len(questions)))))
    texts = [*requests, *islice(filter(None, in_turns), count - len(requests))]
    phrase = match.phrase if match else with_article(record.subject, record.prompt)
    return [filled(text, phrase) for text in rng.sample(texts, len(texts))]


def _kinds_of(subject: str, kinds: list[str]) -> list[str]:
    """Kinds that a subject may be of, by its form."""
    return next((own for pattern, own in _KINDS if pattern.search(subject)), kinds)


@lru_cache
def _stems(of_model: bool) -> dict[str, frozenset[str]]:
    """The stems of the words in all wordings of each relation."""
    wordings = {relation.name: relation.wordings for relation in relations(of_model)}
    return {
        name: frozenset(_stem(word) for text in texts for word in content_words(text))
        for name, texts in wordings.items()
    }


def _stem(word: str) -> str:
    """A word without the ending of a plural or a verb."""
    return re.sub(r"(?:e?s|ed|ing|e)$", "", word)


def _questions(*, held_out: bool) -> dict[str, str]:
    rows = map(json.loads, Path(asset("questions.jsonl")).read_text(encoding="utf-8").splitlines())
    # Every tenth: the file is ordered by sort, so that each sort is held out as often as it occurs.
    return {row["prompt"]: row["sort"] for place, row in enumerate(rows) if (place % 10 == 5) is held_out}
