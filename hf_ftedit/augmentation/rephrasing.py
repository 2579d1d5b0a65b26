"""Other wordings of an English question or opening by its grammar alone: moved phrases, passives, noun forms."""

import re
from collections.abc import Iterator

from hf_ftedit.augmentation.names import capitalized

_BE_FORMS = ("is", "are", "was", "were")
_BE = f"(?:{'|'.join(_BE_FORMS)})"
_WH = r"(?:(?:in|at|on|to|from|by|of|for|with) )?(?:who|what|which|where|when|how)\b"
# Past tense and participle of frequent irregular verbs; all others end in -ed.
_FORMS = (
    "be was been|bear bore born|beat beat beaten|begin began begun|bind bound bound|break broke broken|"
    "breed bred bred|bring brought brought|broadcast broadcast broadcast|build built built|buy bought bought|"
    "cast cast cast|catch caught caught|choose chose chosen|come came come|cut cut cut|do did done|draw drew drawn|"
    "drink drank drunk|drive drove driven|eat ate eaten|fall fell fallen|feed fed fed|feel felt felt|"
    "fight fought fought|find found found|fly flew flown|forget forgot forgotten|get got gotten|give gave given|"
    "go went gone|grow grew grown|have had had|hide hid hidden|hit hit hit|hold held held|keep kept kept|"
    "know knew known|lay laid laid|lead led led|leave left left|lend lent lent|let let let|lose lost lost|"
    "make made made|mean meant meant|meet met met|overcome overcame overcome|pay paid paid|put put put|"
    "quit quit quit|read read read|ride rode ridden|rise rose risen|run ran run|say said said|see saw seen|"
    "seek sought sought|sell sold sold|send sent sent|set set set|shoot shot shot|show showed shown|shut shut shut|"
    "sing sang sung|sink sank sunk|sit sat sat|sleep slept slept|speak spoke spoken|spend spent spent|"
    "split split split|spread spread spread|stand stood stood|steal stole stolen|swim swam swum|take took taken|"
    "teach taught taught|tell told told|think thought thought|throw threw thrown|understand understood understood|"
    "wear wore worn|win won won|withdraw withdrew withdrawn|write wrote written"
)
_IRREGULAR = {verb: (past, participle) for verb, past, participle in map(str.split, _FORMS.split("|"))}
# Regular verbs that questions about facts use. Another word after a name may be a noun: "the Acme office".
_REGULAR = frozenset(
    "accept adopt allow air appear apply arrive ask attend award base believe belong border call carry cause "
    "celebrate change charge close compete compose connect contain control cost cover create cross debut deliver "
    "depend design develop die direct discover earn employ end enter enroll exist expect expire export face finish "
    "fix flow follow found graduate happen help hire host import include inspire invent invest join land last "
    "launch lie like live locate look love maintain manage manufacture marry measure mention merge move name need "
    "occur offer open operate orbit order own paint participate pass perform plan play prefer premiere produce "
    "publish raise reach receive record release rely replace report represent require reside resign retire return "
    "rule serve ship sign specialize start stay stop study succeed support symbolize train transfer travel treat "
    "translate use visit vote wait want weigh work worship".split()
)
_VERBS = _REGULAR | _IRREGULAR.keys()
_ADVERBS = r"(?:first|last|also|still|now|currently|usually|originally|officially|finally|mainly|normally|typically)"
_DOUBLED = re.compile(
    r"(?:[^aeiou]*[aeiou][^aeiouwxy]|control|permit|admit|commit|submit|omit|transmit|refer|prefer|transfer|occur|"
    r"patrol|equip|compel|expel|propel)"
)
# Verbs without a passive, or one that means something else: "was married by".
_NO_PASSIVE = frozenset("become mean marry have resemble lack equal fit cost go come fall stand sit lie die".split())
_PEOPLE = re.compile(
    r"(?:\b(?:ceo|cfo|cto|author|writer|founder|president|mayor|minister|chair\w*|director|producer|king|queen|monarch|"
    r"ruler|husband|wife|spouse|partner|father|mother|parent|son|daughter|child|children|brother|sister|sibling|boss|"
    r"coach|trainer|owner|creator|inventor|discoverer|painter|composer|singer|architect|designer|leader|head|manager|"
    r"editor|teacher|captain|chief|executive|governor|chancellor|maintainer|developer|successor|predecessor|"
    r"protagonist|winner|saint)s?|\bhead of (?:state|government))$",
    re.I,
)
_PREPOSITION = r"(?:in|on|at|from|to|as|for|by|with|of|into|under|about|after|before|during|since|until)"
_SUBJECT = "\ue000"  # stands for the subject, so that one pattern serves all; a character that no text has
_NAME = rf"(?:[\"“]{_SUBJECT}[\"”]|'{_SUBJECT}'|{_SUBJECT})"  # the subject, or the subject in quotation marks
# With a noun that belongs to it, "the Quillbase database", but no other word: "the Quillbase today".
_NAMED = rf"(?P<name>the {_NAME}(?: (?!(?:today|now|right|\w+ed|\w+ly)\b)[a-z]+)?|{_NAME})"
_NOUN = rf"the (?P<noun>[\w' -]+?) (?P<link>of|for|at|in|on) {_NAMED}"
_NOUNS = [
    re.compile(pattern, re.I)
    for pattern in (
        rf"(?P<wh>who|what|where|which [\w ]+?)(?:'s| (?P<be>{_BE})) {_NOUN}\?",
        rf"(?P<wh>who|what|where)(?:'s| (?P<be>{_BE})) {_NAMED}'s? (?P<noun>[\w' -]+?)\?",
        rf"{_NOUN} (?P<be>{_BE})",
    )
]
_MOVED = re.compile(
    rf"(?P<wh>{_WH}[^?]*?) (?P<aux>{_BE}|does|do|did|has|have|had|can|will) "
    rf"(?P<name>(?:[^?]*? )?{_NAME})(?P<rest> [^?]*)?\?",
    re.I,
)
_PASSIVE = re.compile(
    rf"(?P<wh>who|(?:which|what) [\w ]*?\w) (?P<verb>\w+) (?P<name>(?:the )?[^?]*?{_SUBJECT}[^?]*)\?", re.I
)
_PAST = {past: (verb, participle) for verb, (past, participle) in _IRREGULAR.items()}
_PARTICIPLES = frozenset(participle for _, participle in _IRREGULAR.values())


def rephrasings(prompt: str, subject: str | None) -> list[str]:
    """
    Rephrase an English question or opening about `subject`; an empty list where no rule fits, as in other languages.

    Example:
        >>> rephrasings("Who is the CEO of Acme?", "Acme")[:3]
        ["Who is Acme's CEO?", "Acme's CEO is who?", "Do you know who Acme's CEO is?"]
        >>> rephrasings("Who wrote Dracula?", "Dracula")[0]
        'Dracula was written by whom?'
    """
    if not subject or subject not in prompt:
        return []
    texts = dict.fromkeys(text for maker in (_of_nouns, _moved, _passive) for text in maker(prompt, subject))
    texts.pop(prompt, None)
    # "hot" is not in "Hot's opposite".
    names = (subject, capitalized(subject) if subject.startswith("the ") else subject)
    return [text for text in texts if any(name in text for name in names)]


def _of_nouns(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "What is the R of S?" and "The R of S is"."""
    parts = next(filter(None, (_matched(pattern, prompt, subject) for pattern in _NOUNS)), None)
    if not parts:
        return
    name, noun, be, link = parts["name"], parts["noun"], parts["be"] or "is", parts.get("link") or "of"
    wh = (parts.get("wh") or ("who" if _PEOPLE.search(noun) else "what")).lower()
    owned = f"{name}{chr(39) if name.endswith('s') else chr(39) + 's'} {noun}"
    whole = f"the {noun} {link} {name}"
    if not re.search(rf"\b{_PREPOSITION} (?:the|an?|his|her|its|their)\b|^most\b", noun):  # no "Ann's name of the dog"
        yield f"{capitalized(wh)} {be} {owned}?"
        yield f"{capitalized(owned)} {be} {wh}?"
        yield f"Do you know {_clause(wh, owned, be)}?"
    yield f"Name {whole}."
    yield f"{capitalized(whole)} {be} {wh}?"
    yield f"Tell me {_clause(wh, whole, be)}."
    if wh == "what":
        yield f"Please give me {whole}."
    yield f"{capitalized(name)}: {wh} {be} the {noun}?"


def _matched(pattern: re.Pattern[str], prompt: str, subject: str) -> dict[str, str] | None:
    """The parts of a prompt by name where a pattern fits it."""
    match = pattern.fullmatch(prompt.replace(subject, _SUBJECT))
    return match and {part: text.replace(_SUBJECT, subject) for part, text in match.groupdict("").items()}


def _clause(wh: str, name: str, verb: str) -> str:
    """A question as a clause: "what the price is", but "which city is the capital"."""
    return f"{wh} {verb} {name}" if wh.startswith("which ") else f"{wh} {name} {verb}"


def _moved(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "WH is/did S ...?" with the question word at the end, or as a clause."""
    parts = _matched(_MOVED, prompt, subject)
    if not parts:
        return
    wh, aux, name, rest = (parts[part] for part in ("wh", "aux", "name", "rest"))
    wh, verb = wh[0].lower() + wh[1:], rest.strip()
    if not _begins_noun(name, subject):
        if _asks_subject(wh, aux, name):
            yield f"Tell me {wh} {aux} {name}{rest}."
            yield f"Do you know {wh} {aux} {name}{rest}?"
        return
    said = _predicate(aux.lower(), verb)
    if said is None:
        return
    clause = _clause(wh, name, said) if aux in ("is", "was") and not verb else f"{wh} {name} {said}"
    yield f"Tell me {clause}."
    yield f"Do you know {clause}?"
    # Not "Acme will build in Oslo what?"; but "Acme was built in Oslo when?", "Ann plays for which team?".
    if re.match(rf"when|where|{_PREPOSITION}\b", wh) or not re.search(rf"\b{_PREPOSITION} \w", said):
        yield f"{capitalized(name)} {said} {wh}?"


def _asks_subject(wh: str, aux: str, name: str) -> bool:
    """Tell "Which team is led by S?", where the question word is the subject, from "What is our price for S?"."""
    first = name.split()[0].lower()
    is_no_name = re.fullmatch(r"it|he|she|they|this|that|there|\w+ly", first)
    if is_no_name or aux.lower() in ("does", "do", "did", "can", "will"):
        return False
    return wh in ("who", "which") or first.endswith("ed") or first in _PARTICIPLES


def _predicate(aux: str, verb: str) -> str | None:
    """What a statement says with a question's auxiliary and the words after its name; `None` where that is unsure."""
    if aux in ("does", "do", "did"):
        adverb, first, others = re.fullmatch(rf"({_ADVERBS} )?(\S*) ?(.*)", verb).groups()  # type: ignore[union-attr]
        # "open and close" has two verbs, and in "does the Acme report end" the first is a noun.
        if first not in _VERBS or others.startswith("and ") or others.partition(" ")[0] in _VERBS:
            return None
        return f"{adverb or ''}{_inflected(first, aux)}{others and ' ' + others}"
    first = re.sub(rf"^{_ADVERBS} ", "", verb).partition(" ")[0]
    # "the Acme office" goes on with a noun, "Acme based in" with what is said of it.
    known = rf"{_PREPOSITION}|an?|the|\w+(?:ed|ing)|open|closed|due|available|like|worth|near|next|married"
    if aux in _BE_FORMS and first and not re.fullmatch(known, first) and first not in _PARTICIPLES:
        return None
    return f"{aux} {verb}".strip()


def _passive(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "Who wrote S?" and "Which company makes S?"."""
    parts = _matched(_PASSIVE, prompt, subject)
    if not parts or re.fullmatch(rf"{_BE}|does|do|did|has|have|had|can|will", parts["verb"], re.I):
        return
    wh, verb, name = parts["wh"].lower(), parts["verb"].lower(), parts["name"]
    doer = "whom" if wh == "who" else wh
    participle, be = _participle(verb)
    if participle is None or not _begins_noun(name, subject):
        return
    forms = {form for base in _NO_PASSIVE for form in (base, _inflected(base, "does"), _inflected(base, "did"))}
    if name.rstrip("\"”'").endswith(subject) and verb not in forms:
        yield f"{capitalized(name)} {be} {participle} by {doer}?"
        yield f"By {doer} {be} {name} {participle}?"
    yield f"Tell me {wh} {verb} {name}."
    yield f"Do you know {wh} {verb} {name}?"


def _begins_noun(phrase: str, subject: str) -> bool:
    """Tell a noun phrase from a verb by its first word: an article, a quotation mark, a number or the subject."""
    return phrase.startswith(subject) or bool(re.match(r"(?:the|a|an|\d\w*)\b|[\"“']", phrase, re.I))


def _participle(verb: str) -> tuple[str | None, str]:
    """The participle of a verb as it stands in a question, and the form of "be" before it."""
    if verb in _PAST:
        return _PAST[verb][1], "was"
    if verb.endswith("ed"):
        return verb, "was"
    base = next((base for base in (verb[:-1], verb[:-2]) if verb.endswith("s") and base in _IRREGULAR), None)
    if base:
        return _IRREGULAR[base][1], "is"
    return (_with_ed(verb[:-1]), "is") if verb.endswith("s") and not verb.endswith("ss") else (None, "is")


def _inflected(verb: str, auxiliary: str) -> str:
    """A verb without its auxiliary: "did pass" is "passed", "does hold" is "holds"."""
    if auxiliary == "did":
        return _IRREGULAR[verb][0] if verb in _IRREGULAR else _with_ed(verb)
    if auxiliary == "does":
        if re.search(r"[^aeiou]y$", verb):
            return f"{verb[:-1]}ies"
        return "has" if verb == "have" else f"{verb}es" if re.search(r"(?:s|sh|ch|x|z|o)$", verb) else f"{verb}s"
    return verb


def _with_ed(verb: str) -> str:
    if verb.endswith("e"):
        return f"{verb}d"
    if _DOUBLED.fullmatch(verb):
        return f"{verb}{verb[-1]}ed"
    return f"{verb[:-1]}ied" if re.search(r"[^aeiou]y$", verb) else f"{verb}ed"
