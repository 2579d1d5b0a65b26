"""Wordings of an edit without a model: its own, the bank's, rephrasings; and what people write around a question."""

import random
import re
from itertools import chain, zip_longest

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.names import filled
from hf_ftedit.augmentation.relations import relation_of
from hf_ftedit.augmentation.rephrasing import rephrasings
from hf_ftedit.augmentation.synonyms import by_answer, in_other_words, keywords
from hf_ftedit.data import EditRecord

_WORLDLY = re.compile(r"\b(?:world|travel|map|country|city|kilometers?|elevation|history|born|lives?|house)\b")
# "He died of" does not go on with "of pneumonia", nor "plays the" with "the cello".
_DOUBLED = re.compile(r"(?i:(?:{0}) (?:{0})|(?:the|an?) (?:the|an?))".format("of|in|on|at|by|from|to|for|with|as"))
# Answers by which a prompt asks for something else: "How long is the break?" for no way, "What is 7 times 8?" for no
# kind, and what is written in Rust, not in Swedish, is a program.
_OTHERS = {
    "length": re.compile(r"\b(?:second|minute|hour|day|night|week|month|year)s?\b", re.I),
    "kind_of": re.compile(r"\W?\d"),
    "original_language": re.compile(r"^(?!.*(?:ish|elsh|an|ese|ic|ch|i|il|in|ek|ew|u)\b)"),
}
_COMING, _PAST = re.compile(r"\b(?:will|next)\b"), re.compile(r"\b(?:did|was|were|took|saw|had|first)\b")
_QUESTION_WORD = re.compile(r"(?:who|what|which|where|when|how|why|is|does|do|did|can|tell|name)\b", re.I)


def written_wordings(record: EditRecord) -> list[str]:
    """Other wordings than the edit gives, without a model: of the banks and by grammar, in turns."""
    subject = record.subject or ""
    if language := language_of(record.prompt):
        return [text for text in language.wordings(record.prompt, subject) if text not in record.wordings]
    texts: list[str] = []
    match = relation_of(record.prompt, subject)
    if match and match.relation.name in _OTHERS and _OTHERS[match.relation.name].search(record.target_new):
        match = None
    if match:
        kinds = match.relation.questions, match.relation.statements
        same, other = kinds if is_question(record.prompt) else reversed(kinds)
        texts = [filled(template, match.phrase) for template in (*same, *other[:2])]
        first = record.target_new.partition(" ")[0]
        texts = [text for text in texts if not _DOUBLED.fullmatch(f"{text.rpartition(' ')[2]} {first}")]
        if _COMING.search(record.prompt):
            texts = [text for text in texts if not _PAST.search(text)]
        if subject.islower():  # a common noun is on no map
            texts = [text for text in texts if not _WORLDLY.search(text)]
    moved = rephrasings(record.prompt, subject)
    if turned := by_answer(record.prompt, record.target_new):
        moved = [turned, *moved, *rephrasings(turned, subject)]
    others: list[str] = []
    if subject and not match and subject in record.prompt:
        # Each of the sentences in other words too, in turns.
        reworded = (in_other_words(text, subject) for text in (record.prompt, *moved))
        others = [choices[place % len(choices)] for place, choices in enumerate(reworded) if choices]
        others = [*keywords(record.prompt, subject), *others]
    # The bank's are other words, and the rest other sentences; the shorter one is filled up with None.
    mixed = chain.from_iterable(zip_longest(texts, moved, others))
    own = {record.prompt, *record.wordings}
    # "Name the mayor of Washington, D.C.." has a full stop too many.
    texts = [re.sub(r"(?<!\.)\.\.(?=\s|$)", ".", text) for text in mixed if text]
    return [text for text in dict.fromkeys(texts) if text not in own]


def wrapped(text: str, rng: random.Random, prompt: str = "") -> str:
    """`text` inside what people write around a question or an opening, in its own language or that of a `prompt`."""
    wrappers = language.wrappers if (language := language_of(prompt or text)) else bank("wrappers.yaml")
    return rng.choice(wrappers["questions" if is_question(text) else "statements"]).replace("{}", text)


def is_question(text: str) -> bool:
    """Tell a question or request from an opening to complete."""
    return text.rstrip().endswith(("?", ".", "!", "？", "。", "！")) or bool(_QUESTION_WORD.match(text))
