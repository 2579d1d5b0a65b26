"""Other wordings of an English question or opening by its grammar alone: moved phrases, passives, noun forms."""

import re
from collections.abc import Iterator
from itertools import pairwise

from hf_ftedit.augmentation.names import SUBJECT, capitalized, genitive, renamed
from hf_ftedit.augmentation.nouns import BE, MODALS, PEOPLE, YES_NO, as_question, with_apostrophe
from hf_ftedit.augmentation.second_person import is_addressed, to_the_model
from hf_ftedit.augmentation.verbs import PARTICIPLES, VERBS, agreeing, inflected, passive_of

_BE = f"(?:{'|'.join(sorted(BE))})"
_WH = r"(?:(?:in|at|on|to|from|by|of|for|with) )?(?:who|what|which|where|when|how|why)\b"
_QUESTION = re.compile(rf"{_WH}(?:['’]s\b| .*\b{YES_NO.pattern})", re.I)
_AUXILIARY = rf"(?:had\b|{YES_NO.pattern})"
_ADVERBS = r"(?:first|last|also|still|now|currently|usually|originally|officially|finally|mainly|normally|typically)"
# Verbs without a passive, or one that means something else: "was married by".
_NO_PASSIVE = frozenset("become mean marry have resemble lack equal fit cost go come fall stand sit lie die".split())
_PREPOSITION = r"(?:in|on|at|from|to|as|for|by|with|of|into|under|about|after|before|during|since|until)"
_MODEL = "Nova"  # any name, for the model itself
# The subject, or the subject in quotation marks.
_NAME = rf"(?:[\"“]{SUBJECT}[?!.,]?[\"”]|'{SUBJECT}[?!.,]?'|{SUBJECT})"
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
    rf"(?P<wh>{_WH}[^?]*?) (?P<aux>{_AUXILIARY}) (?P<name>(?:[^?]*? )?{_NAME})(?P<rest> [^?]*)?\?",
    re.I,
)
_NO_DOER = rf"(?:{_BE}|has|have|had|who|that|which|what|or|of|first|last|\w+ly)\b"
_ITS = re.compile(rf" (?:of|to|for) (?!be\b).+?(?= (?:\w+ed|{'|'.join(sorted(PARTICIPLES))})\b|$)")
_PASSIVE = re.compile(
    rf"(?P<wh>who|(?:which|what)(?: (?!{_NO_DOER})[\w-]+)+?) "
    rf"(?P<verb>\w{{3,}}) (?=(?:the|an?) |[\d\"“'{SUBJECT}])(?P<name>(?:the )?[^?]*?{SUBJECT}[^?]*)\?",
    re.I,
)

# Questions of people about what they do, and those that yes or no answers, by the parts of each: {do} is what is done.
_MANY = r"(?-i:(?:our |my )?(?:[a-z]+[^su]s|children))"
_WISH = rf"(?:do |(?P<can>(?:can|could|should|must|may) ))(?P<who>I|we|you|one|people|{_MANY}) (?P<do>[^?]+)\?"
_ASKED = [
    (
        re.compile(rf"how {_WISH}", re.I),
        "How can {who} {do}?|How do {who} {do}?|Tell me how to {do}.|What must {who} do to {do}?|"
        "{Who} want to {do}. How do {who} do that?|What is the right way to {do}?|Do you know how to {do}?",
    ),
    (
        re.compile(rf"(?P<wh>where|when) {_WISH}", re.I),
        "{Wh} can {who} {do}?|Tell me {wh} {who} can {do}.|{Wh} is it possible to {do}?|{Wh} do {who} {do}?|"
        "{Who} want to {do}. {Wh} can {who} do that?|Do you know {wh} {who} can {do}?",
    ),
    (
        re.compile(r"(?:can|may|could) (?P<who>I|we|one|people) (?P<do>[^?]+)\?", re.I),
        "Is it possible to {do}?|Tell me whether {who} can {do}.|May {who} {do}?|Can {who} {do}?|"
        "{Who} want to {do}. Can {who} do that?|Do you know whether {who} can {do}?",
    ),
    (
        re.compile(r"(?:do |(?P<can>(?:must|should) ))(?P<who>I|we|people) (?P<do>[^?]+)\?", re.I),
        "Tell me whether {who} {can}{do}.|Do you know whether {who} {can}{do}?|Is it true that {who} {can}{do}?",
    ),
    (
        re.compile(r"(?P<who>who) (?P<do>(?:can|may|must|should|could) (?!(?:I|we|you|one|people)\b)[^?]+)\?", re.I),
        "Tell me {who} {do}.|Do you know {who} {do}?|Please say {who} {do}.|Which person {do}?",
    ),
    (
        re.compile(r"(?P<who>is|are|was|were) there (?P<do>[^?]+)\?", re.I),
        "Tell me whether there {who} {do}.|Do you know whether there {who} {do}?|Please say whether there {who} {do}.",
    ),
    (
        re.compile(rf"(?P<wh>whom?|what|which [\w' -]+?|how (?:much|many|often|long)\b[\w' -]*?) {_WISH}", re.I),
        "Tell me {wh} {who} {can}{do}.|Do you know {wh} {who} {can}{do}?|I would like to know {wh} {who} {can}{do}.|"
        "Please say {wh} {who} {can}{do}.",
    ),
]
# Questions for a common noun itself, "What is the wifi password?", "Who is our CEO?".
_THING = re.compile(rf"(?P<wh>what|who)(?:['’]s| is| was) (?P<name>(?:the )?{SUBJECT})\?", re.I)
_THINGS = {
    "what": "Please give me {name}.|I need {name}. What is it?|Can you give me {name}?|I forgot {name}. What is it?",
    "who": "Name {name}.|What is the name of {name}?|Which person is {name}?|Tell me the name of {name}.",
}
_WHETHER = (
    "Tell me whether {said}.|Do you know whether {said}?|Is it true that {said}?|I would like to know whether {said}."
)
_YES_NO = re.compile(
    rf"(?P<aux>{YES_NO.pattern}) (?:(?P<name>(?:the )?{_NAME}(?: [^?]*?)??)|(?P<many>{_MANY}))(?P<rest> [^?]+)\?",
    re.I,
)

# Where something else than the subject does or is something, or the subject's own noun is it.
_OTHER_DOER = re.compile(
    rf"(?P<wh>{_WH}[^?]*?) (?P<aux>does|do|did) (?P<name>(?:(?:the|our|my|an?) )?[a-z]+) "
    rf"(?P<rest>[^?]*{SUBJECT}[^?]*)\?",
    re.I,
)
_PREDICATE = (
    r"(?:free|legal|illegal|open|included|necessary|safe|common|popular|mandatory|expensive|cheap|banned|\w+(?:ed|able|"
    r"ible|proof|ful|less|ous)|vegan|vegetarian|[\w-]+-(?:safe|free|proof|friendly))"
)
_OTHER_IS = re.compile(
    rf"(?P<aux>{_BE}) (?:(?P<name>(?:(?:the|our|my) )?(?-i:[a-z]+)) (?P<rest>{_PREDICATE} (?!by){_PREPOSITION} [^?]*"
    rf"{SUBJECT}[^?]*)|(?P<named>(?:the )?{SUBJECT}(?: (?-i:[a-z]+)){{1,2}}) (?P<said>{_PREDICATE}))\?",
    re.I,
)


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
    prompt = with_apostrophe(prompt)
    if _QUESTION.match(prompt) and prompt.rstrip()[-1:].isalnum():
        prompt = f"{capitalized(prompt.rstrip())}?"  # as many type it
    if question := as_question(prompt):
        return [question, *(text for text in rephrasings(question, subject) if text != prompt)]
    if is_addressed(subject):
        # Its grammar is that of a name's.
        of_name = rephrasings(renamed(prompt, subject, _MODEL), _MODEL)
        return [to_the_model(text.replace(_MODEL, "{}")) for text in of_name if not text.startswith(f"{_MODEL}:")]
    makers = (_of_nouns, _moved, _passive, _of_people, _of_thing, _yes_or_no, _of_others)
    texts = dict.fromkeys(text for maker in makers for text in maker(prompt, subject))
    texts.pop(prompt, None)
    # "hot" is not in "Hot's opposite".
    names = (subject, capitalized(subject) if subject.startswith("the ") else subject)
    return [text for text in texts if any(name in text for name in names)]


def _of_nouns(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "What is the R of S?" and "The R of S is"."""
    parts = next(filter(None, (_matched(pattern, prompt, subject) for pattern in _NOUNS)), None)
    # "Where is Acme's office based?" has no "office based", but "the man who worked" is one.
    if not parts or re.search(r"^(?!.* (?:who|that|which) ).* \w{2,}[^e]ed$", parts["noun"], re.I):
        return
    name, noun, be, link = parts["name"], parts["noun"], parts["be"] or "is", parts.get("link") or "of"
    wh = (parts.get("wh") or ("who" if PEOPLE.search(noun) else "what")).lower()
    owned = f"{name}{genitive(name)} {noun}"
    whole = f"the {noun} {link} {name}"
    # No "Ann's name of the dog", "Mac's version of Acme" or "finance's Norwegian minister".
    no_genitive = rf"\b{_PREPOSITION} (?:the|an?|his|her|its|their)\b|^most\b"
    if parts.get("link"):
        no_genitive += r"|\bof [A-Z]" + (r"|^[A-Z][a-z]" if subject.islower() else "")
    if not re.search(no_genitive, noun) and not name.endswith("'"):
        yield f"{capitalized(wh)} {be} {owned}?"
        yield f"{capitalized(owned)} {be} {wh}?"
        yield f"Do you know {_clause(wh, owned, be)}?"
    if wh != "where" and not noun.startswith("name"):
        yield f"Name {whole}."
    yield f"{capitalized(whole)} {be} {wh}?"
    yield f"Tell me {_clause(wh, whole, be)}."
    if wh == "what":
        yield f"Please give me {whole}."
    yield f"{capitalized(name)}: {wh} {be} the {noun}?"


def _matched(pattern: re.Pattern[str], prompt: str, subject: str) -> dict[str, str] | None:
    """The parts of a prompt by name where a pattern fits it."""
    match = pattern.fullmatch(prompt.replace(subject, SUBJECT))
    return match and {part: text.replace(SUBJECT, subject) for part, text in match.groupdict("").items()}


def _clause(wh: str, name: str, verb: str) -> str:
    """A question as a clause: "what the price is", but "which city is the capital"."""
    return f"{wh} {verb} {name}" if wh.startswith("which") else f"{wh} {name} {verb}"


def _moved(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "WH is/did S ...?" with the question word at the end, or as a clause."""
    parts = _matched(_MOVED, prompt, subject)
    if not parts:
        return
    wh, aux, name, rest = (parts[part] for part in ("wh", "aux", "name", "rest"))
    # "The key to the safe", and not "the key" alone, is somewhere.
    if aux.lower() in BE and (its := _ITS.match(rest)):
        name, rest = name + its[0], rest[its.end() :]
    wh, verb = wh[0].lower() + wh[1:], rest.strip()
    # Or "customers of S", whose verb is in the plural, and "does flight S", where nothing but a noun can stand.
    own = re.escape(subject)
    is_many = aux.lower() in ("do", "are") and re.fullmatch(rf"[a-z]+ (?:of|at|in|from) {own}", name)
    is_noun = aux.lower() in ("do", "does", "did") and re.fullmatch(f"[a-z]+ {own}", name)
    # "Which service has S?", but "What has S bought?"
    first = verb.partition(" ")[0]
    is_done = first in PARTICIPLES or re.fullmatch(r"\w+ed", first)
    has_object = aux.lower() in ("has", "have", "had") and not is_done and re.match("who|which", wh)
    if has_object or not (_begins_noun(name, subject) or is_many or is_noun):
        if has_object or _asks_subject(wh, aux, name):
            yield f"Tell me {wh} {aux} {name}{rest}."
            yield f"Do you know {wh} {aux} {name}{rest}?"
        return
    name, said = _said(name, aux.lower(), verb)
    if said is None:
        return
    clause = _clause(wh, name, said) if aux in ("is", "was") and not verb else f"{wh} {name} {said}"
    yield f"Tell me {clause}."
    yield f"Do you know {clause}?"
    if wh == "why":
        return
    # Not "Acme will build in Oslo what?"; but "Acme was built in Oslo when?", "Ann plays for which team?".
    if re.match(rf"when|where|{_PREPOSITION}\b", wh) or not re.search(rf"\b{_PREPOSITION} \w", said):
        yield f"{capitalized(name)} {said} {wh}?"
    # "Which gate does S leave from?" is "From which gate does S leave?", and the other way round.
    if len(rest.split()) < 3 and (before := re.fullmatch(rf"({_PREPOSITION}) ((?:which|what) .+)", wh)):
        yield f"{capitalized(before[2])} {aux} {parts['name']}{rest} {before[1]}?"
    elif re.match("(?:which|what) ", wh) and (behind := re.fullmatch(rf"(.* \w+) ({_PREPOSITION})", rest)):
        yield f"{capitalized(behind[2])} {wh} {aux} {parts['name']}{behind[1]}?"


def _asks_subject(wh: str, aux: str, name: str) -> bool:
    """Tell "Which team is led by S?", where the question word is the subject, from "What is our price for S?"."""
    first = name.split()[0].lower()
    is_no_name = re.fullmatch(r"it|he|she|they|this|that|there|\w+ly", first)
    if is_no_name or aux.lower() not in BE | {"has", "have", "had"}:
        return False
    return wh in ("who", "which") or first.endswith("ed") or first in PARTICIPLES


def _said(name: str, aux: str, verb: str) -> tuple[str, str | None]:
    """A name with the nouns that belong to it, "the Acme train", and its predicate, where that is sure."""
    words = verb.split()
    place = next((i for i, (w, after) in enumerate(pairwise([*words, ""])) if w in VERBS and after not in VERBS), 0)
    no_noun = rf"{_PREPOSITION}|{_ADVERBS}|and|or|be|\w+ly|.*[^a-z].*"
    is_longer = aux in ("does", "do", "did") and name.startswith("the ")
    if is_longer and not any(re.fullmatch(no_noun, word) for word in words[:place]):
        name, verb = " ".join([name, *words[:place]]), " ".join(words[place:])
    return name, _predicate(aux, verb)


def _predicate(aux: str, verb: str) -> str | None:
    """What a statement says with a question's auxiliary and the words after its name; `None` where that is unsure."""
    if aux in ("does", "do", "did"):
        adverb, first, others = re.fullmatch(rf"(?s)({_ADVERBS} )?(\S*) ?(.*)", verb).groups()  # type: ignore[union-attr]
        # "open and close" has two verbs, and in "does the Acme report end" the first is a noun.
        if first not in VERBS or others.startswith("and ") or others.partition(" ")[0] in VERBS:
            return None
        return f"{adverb or ''}{inflected(first, aux)}{others and ' ' + others}"
    first = re.sub(rf"^{_ADVERBS} ", "", verb).partition(" ")[0]
    # "the Acme office" goes on with a noun, "Acme based in" with what is said of it.
    known = rf"{_PREPOSITION}|an?|the|\w+ed|open|closed|due|available|like|worth|near|next|married"
    is_said = (
        first in PARTICIPLES
        or re.fullmatch(known, first)
        or re.match(rf"{_PREDICATE}(?: {_PREPOSITION} |$)", verb)
        or re.match(rf"\w+ing(?: (?:{_PREPOSITION}|the|an?|[A-Z\d]\S*)\b|$)", verb)  # no "marketing team"
    )
    if aux in BE and first and not is_said:
        return None
    return f"{aux} {verb}".strip()


def _passive(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "Who wrote S?" and "Which company makes S?"."""
    parts = _matched(_PASSIVE, prompt, subject)
    if not parts or re.fullmatch(rf"{_BE}|does|do|did|has|have|had|can|will", parts["verb"], re.I):
        return
    wh, verb, name = parts["wh"].lower(), parts["verb"].lower(), parts["name"]
    doer = "whom" if wh == "who" else wh
    participle, be = passive_of(verb)
    be = agreeing(f"{{}} {be}", name).removeprefix(f"{name} ")
    if participle is None or not _begins_noun(name, subject):
        return
    forms = {form for base in _NO_PASSIVE for form in (base, inflected(base, "does"), inflected(base, "did"))}
    if name.rstrip("\"”'").endswith(subject) and verb not in forms:
        yield f"{capitalized(name)} {be} {participle} by {doer}?"
        yield f"By {doer} {be} {name} {participle}?"
    yield f"Tell me {wh} {verb} {name}."
    yield f"Do you know {wh} {verb} {name}?"


def _of_people(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "How do I reset S?", "Where can I park at S?", "Can I pay by card at S?"."""
    for pattern, templates in _ASKED:
        if parts := _matched(pattern, prompt, subject):
            who, wh = parts["who"], parts.get("wh", "")
            wh = f"{wh[:1].lower()}{wh[1:]}"
            who = "I" if who.lower() in ("i", "you") else who.lower()  # "You want to" is nobody's question
            names = {**parts, "who": who, "wh": wh, "Who": capitalized(who), "Wh": capitalized(wh)}
            names["can"] = parts.get("can", "").lower()
            # "Employees of Acme do": "to of Acme do" is no English.
            is_of = re.match(f"{_PREPOSITION} ", parts["do"])
            chosen = (each for each in templates.split("|") if not (is_of and "to {do}" in each))
            yield from (template.format(**names) for template in chosen)
            return


def _of_thing(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "What is the wifi password?" and "Who is our CEO?", but not of "What is tea?"."""
    parts = _matched(_THING, prompt, subject)
    if parts and re.match("(?:the|our|my) [a-zA-Z]+", parts["name"]) and subject[0].islower():
        yield from (template.format(name=parts["name"]) for template in _THINGS[parts["wh"].lower()].split("|"))


def _yes_or_no(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "Does S allow dogs?" and "Is S open on Sundays?"."""
    if not (parts := _matched(_YES_NO, prompt, subject)):
        return
    aux, rest = parts["aux"].lower(), parts["rest"].strip()
    if name := parts["many"]:  # which no other noun follows
        if aux in ("does", "did", "is", "was", "has"):
            return
        said: str | None = rest if aux == "do" else f"{aux} {rest}"
    else:
        name, said = _said(parts["name"], aux, rest)
        if aux in BE and rest.isalpha():  # a single word at the end is no noun: "Is S waterproof?"
            said = f"{aux} {rest}"
        if aux in MODALS and rest.partition(" ")[0] not in VERBS:  # "Can Acme orders be returned?"
            return
    yield from (template.format(said=f"{name} {said}") for template in _WHETHER.split("|") if said)


def _of_others(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "When does breakfast end at S?", "Is parking free at S?" and "Which S plan lets me print?"."""
    clause = None
    if parts := _matched(_OTHER_DOER, prompt, subject):
        name, said = _said(parts["name"], parts["aux"].lower(), parts["rest"])
        # In "does the Basic plan of S cost" the last verb is the verb.
        is_noun = re.search(rf" (?!(?:{_PREPOSITION}|the|an?) )\S+ (\S+)$", parts["rest"])
        said = None if is_noun and is_noun[1] in VERBS else said
        clause = said and f"{parts['wh'][0].lower()}{parts['wh'][1:]} {name} {said}"
    elif parts := _matched(_OTHER_IS, prompt, subject):
        clause = f"whether {parts['name'] or parts['named']} {parts['aux'].lower()} {parts['rest'] or parts['said']}"
    elif re.match(r"(?:who|which|what) (?!['’])", prompt, re.I) and not re.search(rf"\b{_AUXILIARY}", prompt, re.I):
        clause = f"{prompt[0].lower()}{prompt.rstrip('?')[1:]}"  # the question word is its subject
    if clause:
        yield f"Tell me {clause}."
        yield f"Do you know {clause}?"


def _begins_noun(phrase: str, subject: str) -> bool:
    """Tell a noun phrase from a verb by its first word: an article, a quotation mark, a number or the subject."""
    return phrase.startswith(subject) or bool(re.match(r"(?:the|a|an|\d\w*)\b|[\"“']", phrase, re.I))
