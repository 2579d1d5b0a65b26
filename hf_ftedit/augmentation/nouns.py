"""The common noun that an English question is about: "the printer" in "Where is the printer?"."""

import re

from hf_ftedit.augmentation.verbs import PARTICIPLES, THIRD, VERBS

BE = frozenset("is are was were".split())
MODALS = frozenset("can could should must may will".split())
_AUXILIARIES = BE | MODALS | frozenset("do does did has have".split())
YES_NO = re.compile(rf"(?:{'|'.join(sorted(_AUXILIARIES))})\b", re.I)  # begins a question that yes or no answers
_ASKING = re.compile(
    rf"(?:who|whom|whose|what|which|where|when|how|why|in|on|at|from|for|by|to)\b|{YES_NO.pattern}", re.I
)
_DETERMINERS = frozenset("the our my a an".split())
_PREPOSITIONS = frozenset(
    "about above after against among around as at before below between by down during for from in into near of off on "
    "out over per since than through to under until up via with within without".split()
)
_PERSONS = frozenset("i we you he she it they one people".split())
# Where a noun phrase ends, or none begins.
_NO_NOUN = _AUXILIARIES | _DETERMINERS | _PREPOSITIONS | _PERSONS | frozenset(
    "there this that these those and or if because open closed today now tomorrow "
    "yesterday who what which where when how not next been be used known called most its their his her away "
    "am due would".split()
)  # fmt: skip
_ADVERB = re.compile(r"(?!(?:family|assembly|monopoly|supply|reply|hourly|daily|weekly|monthly|yearly)$)\w+ly")
_REQUEST = re.compile(r"(?:please )?(?:tell me|give me|name|state) ((?:the|our|my) .+?)[.!]?", re.I)
PEOPLE = re.compile(
    r"(?:\b(?:ceo|cfo|cto|author|writer|founder|president|mayor|minister|chair\w*|director|producer|king|queen|monarch|"
    r"ruler|husband|wife|spouse|partner|father|mother|parent|son|daughter|child|children|brother|sister|sibling|boss|"
    r"coach|trainer|owner|creator|inventor|discoverer|painter|composer|singer|architect|designer|leader|head|manager|"
    r"editor|teacher|captain|chief|executive|governor|chancellor|maintainer|developer|successor|predecessor|"
    r"protagonist|character|hero|heroine|winner|saint)s?|\bhead of (?:state|government))$",
    re.I,
)
_MOST_WORDS = 3


def with_apostrophe(question: str) -> str:
    """A question that begins with "whats" or "whos" as one with "what's"."""
    return re.sub(r"\A(what|who|when|where|how)s\b", r"\1's", question, flags=re.I)


def as_question(prompt: str) -> str | None:
    """
    A request for a thing or person as a question; `None` for anything else.

    Example:
        >>> as_question("Tell me the wifi password."), as_question("Name the CEO of Acme.")
        ('What is the wifi password?', 'Who is the CEO of Acme?')
    """
    if not (request := _REQUEST.fullmatch(prompt.strip())):
        return None
    return f"{'Who' if PEOPLE.search(request[1].partition(' of ')[0]) else 'What'} is {request[1]}?"


def common_noun(question: str) -> str | None:
    """
    The noun behind the auxiliary of a question, or else its last one, without "the"; `None` where it has none.

    Example:
        >>> common_noun("When does the cafeteria open on fridays"), common_noun("What's the code for our front door?")
        ('cafeteria', 'our front door')
    """
    words = re.sub(r"['’]s\b", " is", question).rstrip("?.! ").split()
    small = [word.casefold() for word in words]
    if not _ASKING.match(question):
        # An opening: "Our fiscal year starts in".
        noun = _phrase(words[1:], has_verb=False) if {*small[:1]} & {"our", "my", "the"} else ""
        after = small[len(noun.split()) + 1 :][:1]
        return noun if noun and noun in question and {*after} & (BE | THIRD) else None
    aux = next((place for place, word in enumerate(small) if word in _AUXILIARIES), None)
    has_verb = aux is not None and small[aux] not in BE
    for place in _places(small, aux):
        if noun := _phrase(words[place:], has_verb, is_asked=aux is not None and place == aux + 1):
            # Of "Where should guests park?" the last word must be the verb.
            rest = " ".join(small[(aux or 0) + 1 :]).removeprefix("the ")
            is_said = has_verb and small[0] != "who" or (aux is not None and small[0] in (*BE, "why"))
            is_whole = is_said and " " in noun and rest == noun.casefold()
            noun = noun.rpartition(" ")[0] if is_whole else noun
            return noun if noun and noun in question else None
    return None


def is_noun(word: str = "") -> bool:
    """Tell what may be a noun behind a name, as in "the Acme kettle", from a verb or preposition: "the Acme opens"."""
    is_other = word.endswith(("ed", "ly")) or word in _NO_NOUN | VERBS | PARTICIPLES | THIRD
    return word.islower() and not is_other


def _places(small: list[str], aux: int | None) -> list[int]:
    """Where the noun of a question may begin, the likeliest place first."""
    if aux is None:
        # Behind the verb: "Who approves travel requests?", "Which team handles refunds?"
        begun = [
            place + 1
            for place, word in enumerate(small)
            if place and (small[0] == "who" or re.search("[^su]s$", word))
        ]
    elif small[aux] in BE and small[aux + 1 : aux + 2] and small[aux + 1].endswith("ed"):
        begun = []  # "Which browsers are supported?"
    else:
        # "Who can sign contracts?" has a verb there, unless it is "Who can I call?".
        is_doer = small[0] == "who" and aux == 1 and small[1] in MODALS and not {*small[2:3]} & _PERSONS
        begun = [aux + (2 if is_doer else 1)]
        if small[aux + 1 : aux + 2] in (["i"], ["we"]) and len(small) == aux + 4:
            begun = [aux + 3]  # "How do I exit vim?"
    nouns = [place for place, word in enumerate(small) if word in _DETERMINERS]
    # Behind "to" stands a verb: "Which form do I need to claim expenses?"
    nouns = nouns or [place + 1 + (word == "to") for place, word in enumerate(small) if word in _PREPOSITIONS]
    return [*begun[:1], *nouns[-1:]]


def _phrase(words: list[str], has_verb: bool, is_asked: bool = False) -> str:
    """The noun phrase with which words begin; of "the code for the door" it is the door."""
    words = words[1:] if words[:1] == ["the"] else words
    first = int(words[:1] != [] and words[0] in _DETERMINERS)
    end = first
    while end < len(words) and end - first < _MOST_WORDS and not _ends(words[end:], end == first, has_verb, is_asked):
        end += 1
    if end == first:
        return ""
    owner = _phrase(words[end + 1 :], has_verb) if words[end : end + 1] in (["of"], ["for"]) else ""
    return owner or " ".join(words[:end])


def _ends(words: list[str], is_first: bool, has_verb: bool, is_asked: bool) -> bool:
    """Tell whether a noun phrase ends before `words`: they go on with a verb, a preposition or an adverb."""
    word, after = words[0].casefold(), words[1].casefold() if len(words) > 1 else ""
    if word in _NO_NOUN or _ADVERB.fullmatch(word) or not re.fullmatch(r"[\w-]+", word):
        return True
    # Behind "does" stands a verb's first form, behind "is" a participle.
    is_verb = word in VERBS and after not in VERBS if has_verb else word.endswith("ed") or word in PARTICIPLES
    return not is_first and (is_verb or (word in THIRD and bool(after) and not is_asked))
