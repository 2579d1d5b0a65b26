"""Other questions about the subject of an edit, by what the package knows to fit which kind of subject."""

import random
from collections.abc import Sequence

from hf_ftedit.augmentation.relations import asked_words, bank, content_words, filled, relation_of, relations
from hf_ftedit.data import EditRecord

_ANSWERS = {"who": "who", "whose": "who", "where": "where", "when": "when", "how": "number"}
REQUESTS = 3  # every third question is an open request: "Tell me about {}."


def other_questions(record: EditRecord, edits: Sequence[EditRecord], count: int, rng: random.Random) -> list[str]:
    """
    At most `count` questions about the subject of `record` that none of `edits`, all those of this subject, answers.

    They ask for what subjects of its kind have, or those of any kind, where the bank does not know what is edited.
    """
    if not record.subject or record.subject not in record.prompt:
        return []
    match = relation_of(record.prompt, record.subject)
    matches = [other for edit in edits if (other := relation_of(edit.prompt, edit.subject))]
    edited, known = {match.relation.name for match in matches}, bank("subjects.yaml")
    kinds = [names for names in known["kinds"].values() if edited & {*names}] or known["kinds"].values()
    left_out = edited.union(*(names for names in known["alike"] if edited & {*names}))
    names = {name for kind in kinds for name in kind} - left_out
    # Where the bank does not know what an edit asks for, its words tell, "robot vacuum", and what answers it: "Who is
    # the monarch of {}?" may ask for the head of state.
    own = frozenset[str]().union(*map(asked_words, edits))
    kind = "" if match else next((word for word in record.prompt.casefold().split() if word in _ANSWERS), "")
    questions = [
        text
        for relation in relations()
        if relation.name in names and relation.answer != _ANSWERS.get(kind)
        for text in relation.questions
        if not own & content_words(text) and not (kind and kind in text.casefold().split())
    ]
    requests = rng.sample(known["requests"], min(len(known["requests"]), count // REQUESTS))
    texts = [*requests, *rng.sample(questions, min(len(questions), count - len(requests)))]
    return [filled(text, match.phrase if match else record.subject) for text in rng.sample(texts, len(texts))]
