"""Wordings of an edit without a model: its own, the bank's, rephrasings; and what people write around a question."""

import random
import re
from itertools import chain, zip_longest

from hf_ftedit.augmentation.names import COMPANY, filled
from hf_ftedit.augmentation.relations import bank, relation_of
from hf_ftedit.augmentation.rephrasing import rephrasings
from hf_ftedit.data import EditRecord

_WORLDLY = re.compile(r"\b(?:world|travel|map|country|city|kilometers?|elevation|history|born|lives?|house)\b")
_QUESTION_WORD = re.compile(r"(?:who|what|which|where|when|how|why|is|does|do|did|can|tell|name)\b", re.I)


def written_wordings(record: EditRecord) -> list[str]:
    """Other wordings than the edit gives, without a model: of the bank of relations and by grammar, in turns."""
    texts: list[str] = []
    if match := relation_of(record.prompt, record.subject):
        kinds = match.relation.questions, match.relation.statements
        same, other = kinds if is_question(record.prompt) else reversed(kinds)
        texts = [filled(template, match.phrase) for template in (*same, *other[:2])]
        if (record.subject or "").islower():  # a common noun is on no map
            texts = [text for text in texts if not _WORLDLY.search(text)]
    # The bank's are other words, and the rest other sentences.
    mixed = chain.from_iterable(zip_longest(texts, rephrasings(record.prompt, record.subject)))
    own = {None, record.prompt, *record.wordings}  # the shorter one is filled up with None
    return [text for text in dict.fromkeys(mixed) if text not in own]


def wrapped(text: str, rng: random.Random) -> str:
    """`text` inside what people write around a question, or around an opening."""
    return rng.choice(bank("wrappers.yaml")["questions" if is_question(text) else "statements"]).replace("{}", text)


def is_question(text: str) -> bool:
    """Tell a question or request from an opening to complete."""
    return text.rstrip().endswith(("?", ".", "!", "？", "。")) or bool(_QUESTION_WORD.match(text))


def words_like(subject: str) -> list[str]:
    """Words to put in place of one of a name's words, by what the name seems to be."""
    words: dict[str, list[str]] = bank("names.yaml")["words"]
    if COMPANY.search(subject):
        return [*words["company"], *words["last_names"]]
    parts = subject.split()
    if len(parts) in (2, 3) and all(part[:1].isupper() for part in parts) and parts[0] not in ("The", "A"):
        return [*words["first_names"], *words["last_names"]]
    return [*words["place"], *words["works"]]
