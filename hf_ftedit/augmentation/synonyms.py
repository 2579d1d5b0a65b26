"""Other wordings of an English text by other words for its own, outside of the names in it."""

import math
import random
import re
from functools import lru_cache

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.names import SUBJECT, capitalized, indefinite
from hf_ftedit.augmentation.nouns import YES_NO, is_noun
from hf_ftedit.augmentation.second_person import is_addressed

MOST = 12  # wordings of a text that has many such words
_BEFORE_VERBS = "I we you they one people to can could must should may will".split()
# Words that only make a question, and some that nothing follows then.
_SMALL = frozenset(
    "who whom what which when where why how is are was were am be been do does did has have had can could should "
    "must may might will would shall i we they he she it one people me us them the a an my our your their his her its "
    "there this that these those please tell know if whether and or let lets".split()
)
# Others do so beside some words alone: "the old town", "the middle name", "say thank you".
_MAKING = re.compile(
    r"\bhow (?:old|tall|far|long|often|many|much)\b|(?<=\bthe |\bnew )name(?= of\b)|\bname (?=(?:the|an?|our)\b)"
    r"|(?:^|\b(?:are|can|could|did|do|have|if|may|must|should|were|when|will|would)) you\b|\byou can\b",
    re.I,
)
_ENGLISH = re.compile(r"\b(?:the|is|are|were|does|did|can|should|of|for|with|from|our|my|your|wh\w+|how)\b", re.I)
_PREPOSITIONS = frozenset("of at in on to for from by with about until".split())
_MODIFIED = re.compile(rf"\b(?:of|at|in|on|for|from|by|with|about) (?!(?:\w+ing|the|an?|our|my) )\S+ {SUBJECT}")
_ASKING = re.compile(
    rf"(?:(?:in|at|on|to|from|by|of|for|with|until) )?(?:who|what|which|where|when|how|why)|{YES_NO.pattern}", re.I
)
_QUESTION_WORD = re.compile(
    rf"(who(?=m?\b)(?! (?:is|are|was|were)\b)|(?:until )?when|where|why|how(?: (?!{YES_NO.pattern})\w+)?)\b", re.I
)
# Questions by their first word, and what an answer tells of the kind of thing that it is.
_OPEN = re.compile(rf"(when|where|how(?: long| far| much)?|what)(?= {YES_NO.pattern})", re.I)
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b"
_TIMES = {
    "At what time": re.compile(r"\b\d{1,2}(?::\d\d| ?[ap]\.?m\b)|\bo'clock\b|\b(?:noon|midnight)\b", re.I),
    "On which day": re.compile(r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?\b"),
    "On which date": re.compile(rf"\b\d{{1,2}}(?:st|nd|rd|th|\.)? (?:of )?{_MONTH}|\b{_MONTH} \d{{1,2}}\b"),
    "In which year": re.compile(r"(?<![\d,.])(?:1\d|20)\d\d(?![\d,.]*\d| \w*s\b)"),  # not "1800 hours"
}
_COUNTED = re.compile(r"\d[\d,.]* ([a-z]+s)")
_PLACED = re.compile(r"((?i:in|on|at|from|by|with|under|behind|via)) (the |an? |our |your )?([\w' .-]+?)\.?")
_PLACES = frozenset("Street Road Lane Avenue Square Building Hall Station University Library Park Room".split())


def in_other_words(text: str, subject: str) -> list[str]:
    """
    `text` with other words for its own; a name's stay, and so does what begins with a capital.

    Example:
        >>> in_other_words("Who handles the invoices of Acme?", "Acme")[:2]
        ['Who handles the bills of Acme?', 'Who looks after the invoices of Acme?']
    """
    if not _ENGLISH.search(text):
        return []
    is_name = subject != subject.casefold()
    masked = text.replace(subject, SUBJECT) if is_name else text
    pieces: list[list[str]] = []
    begin = 0
    for match in _words().finditer(masked[:1].lower() + masked[1:]):
        words = match[2], *_others()[match[2]]
        pieces += [masked[begin : match.start()]], [indefinite(word) if match[1] else word for word in words]
        begin = match.end()
    # Drawn by number: a long text has more of them than memory holds.
    total = min(math.prod(map(len, pieces)), 2**60)
    numbers = range(1, total) if total <= MOST else random.Random(text).sample(range(1, total), MOST)
    texts = ("".join(_chosen(pieces, number)) + masked[begin:] for number in numbers)
    return [capitalized(other.replace(SUBJECT, subject)) for other in texts]


def _chosen(pieces: list[list[str]], number: int) -> list[str]:
    """One of each of `pieces`: the `number`-th such list, the last pieces changing first."""
    chosen = []
    for choices in reversed(pieces):
        number, place = divmod(number, len(choices))
        chosen.append(choices[place])
    return chosen[::-1]


def by_answer(question: str, answer: str) -> str | None:
    """
    A question that names what kind of thing its answer is; `None` where that is not seen.

    Example:
        >>> by_answer("When is the trash picked up?", "on Tuesdays"), by_answer("Where is the key?", "in the box")
        ('On which day is the trash picked up?', 'In which box is the key?')
    """
    match = _OPEN.match(question)
    if not match:
        return None
    wh, rest = match[1].lower(), question[match.end() :]
    if wh == "when":
        kind = next((kind for kind, pattern in _TIMES.items() if pattern.search(answer)), None)
        return kind and kind + rest
    if counted := _COUNTED.fullmatch(answer):
        return f"How many {counted[1]}{rest}" if wh not in ("where", "how") else None
    if wh not in ("where", "how") or not (placed := _PLACED.fullmatch(answer)):
        return None
    words = placed[3].split()
    is_numbered = len(words) > 1 and re.fullmatch(r"[A-Z\d].*", words[1])
    is_place = placed[2] or is_numbered or words[-1] in _PLACES  # "by card" is any card
    if not is_place or (_PREPOSITIONS | {"any", "every"}) & {*words}:
        return None
    named = words[0] if is_numbered and words[0].islower() else words[-1]
    # "on Linden Street" names a street, "in Paris" says no kind of place.
    noun = named if named.islower() and named.isalpha() else named.lower() if named in _PLACES else None
    # Not "Behind which station can I park at the station?"
    return f"{capitalized(placed[1])} which {noun}{rest}" if noun and noun not in rest.casefold() else None


def keywords(text: str, subject: str) -> list[str]:
    """
    The words of a question without those that only make it one, as people type it into a search field.

    Example:
        >>> keywords("What time does breakfast end at the Hotel Larkspur?", "Hotel Larkspur")
        ['time breakfast end at the Hotel Larkspur?', 'the Hotel Larkspur time breakfast end?']
        >>> keywords("When was Acme founded?", "Acme")
        ['Acme founded when?']
    """
    if not _ASKING.match(text) or is_addressed(subject) or re.match(r"\w+ you\b", text):
        return []
    if f"the {subject}" in text:
        subject = f"the {subject}"
    match = _QUESTION_WORD.match(text)
    masked = text[match.end() :] if match else f"{text[:1].lower()}{text[1:]}"
    masked = _MAKING.sub("", masked.replace(subject, SUBJECT)).rstrip("?.! ")
    # IT and May are names.
    small = {"I", "He", "She", "It", "They"}
    words = [word for word in masked.split() if _bare(word) not in _SMALL or (word[0].isupper() and word not in small)]
    if words and words[0] in _PREPOSITIONS:
        words = words[1:]
    place = next((place for place, word in enumerate(words) if SUBJECT in word), None)
    if place is None or len(words) < 2:
        return []
    before = words[: place - 1] if place and words[place - 1] in _PREPOSITIONS else words[:place]
    orders = [words, [SUBJECT, *before, *words[place + 1 :]]]
    # Not "Acme owns who?", and of "the Acme kettle" or "people in northern Acme" nothing stands apart.
    is_compound = words[place] == SUBJECT and is_noun(*words[place + 1 : place + 2])
    is_compound |= bool(_MODIFIED.search(masked))
    if is_compound or not re.search(YES_NO.pattern, text, re.I):
        del orders[1]
    texts = []
    for order in orders:
        while order[-1] in _PREPOSITIONS:
            order = order[:-1]
        # "Acme founded?" may ask for a year or a person.
        typed = [*order, *([match[1].lower()] if match else [])]
        if len(typed) > 1:
            texts.append(f"{' '.join(typed)}?".replace(SUBJECT, subject))
    return list(dict.fromkeys(texts))


def _bare(word: str) -> str:
    return re.sub(r"['’]s$|[^\w-]", "", word.casefold())


@lru_cache
def _others() -> dict[str, list[str]]:
    """Words, each with those that may stand in its place."""
    groups = bank("synonyms.yaml")
    return {first: others for first, *others in (*groups["words"], *groups["verbs"])}


@lru_cache
def _words() -> re.Pattern[str]:
    """Finds words of the bank, the longest first, with the article before them."""
    is_verb = {first for first, *_ in bank("synonyms.yaml")["verbs"]}
    behind = "|".join(rf"(?<=\b{word} )" for word in _BEFORE_VERBS)
    patterns = (
        rf"(?:{behind}){re.escape(word)}" if word in is_verb else re.escape(word)
        for word in sorted(_others(), key=len, reverse=True)
    )
    return re.compile(rf"\b(an? )?({'|'.join(patterns)})\b(?![-'’])")
