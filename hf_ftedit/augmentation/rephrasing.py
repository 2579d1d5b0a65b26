"""Other wordings of an English question or opening by its grammar alone: moved phrases, passives, noun forms."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BE = r"(?:is|are|was|were)"
_WH = r"(?:(?:in|at|on|to|from|by|of|for|with) )?(?:who|what|which|where|when|how)\b"
# Past tense and participle of frequent irregular verbs; all others end in -ed.
_IRREGULAR = {
    verb: (past, participle)
    for verb, past, participle in (
        line.split()
        for line in (
            "be was been|bear bore born|become became become|begin began begun|bring brought brought|"
            "build built built|"
            "buy bought bought|choose chose chosen|come came come|draw drew drawn|fall fell fallen|find found found|"
            "fight fought fought|fly flew flown|get got got|give gave given|go went gone|grow grew grown|have had had|"
            "hold held held|keep kept kept|know knew known|lead led led|leave left left|lose lost lost|"
            "make made made|mean meant meant|meet met met|pay paid paid|play played played|run ran run|say said said|"
            "sell sold sold|send sent sent|sing sang sung|speak spoke spoken|spend spent spent|sit sat sat|"
            "stand stood stood|take took taken|teach taught taught|tell told told|wear wore worn|win won won|"
            "write wrote written"
        ).split("|")
    )
}
_PAST = {past: (verb, participle) for verb, (past, participle) in _IRREGULAR.items()}


def rephrasings(prompt: str, subject: str | None) -> list[str]:
    """
    Rephrase an English question or opening about `subject`; an empty list where no rule fits, as in other languages.

    Example:
        >>> rephrasings("Who is the CEO of Acme?", "Acme")[:3]
        ["Who is Acme's CEO?", "Acme's CEO is who?", 'Name the CEO of Acme.']
        >>> rephrasings("Who wrote Dracula?", "Dracula")[0]
        'Dracula was written by whom?'
    """
    if not subject or subject not in prompt:
        return []
    texts = dict.fromkeys([*_of_nouns(prompt, subject), *_moved(prompt, subject), *_passive(prompt, subject)])
    texts.pop(prompt, None)
    return list(texts)


def _of_nouns(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "What is the R of S?" and "The R of S is"."""
    name = rf"(?P<name>(?:the )?[\"“']?{re.escape(subject)}[\"”']?)"
    noun = rf"the (?P<noun>[\w' -]+?) (?P<link>of|for|at|in|on) {name}"
    question = re.fullmatch(rf"(?P<wh>who|what|where|which [\w ]+?)(?:'s| (?P<be>{_BE})) {noun}\?", prompt, re.I)
    own = re.fullmatch(rf"(?P<wh>who|what|where)(?:'s| (?P<be>{_BE})) {name}'s? (?P<noun>[\w' -]+?)\?", prompt, re.I)
    opening = re.fullmatch(rf"{noun} (?P<be>{_BE})", prompt, re.I)
    if not (match := question or own or opening):
        return
    parts = match.groupdict()
    name, noun, be, link = parts["name"], parts["noun"], parts["be"] or "is", parts.get("link") or "of"
    wh = (parts.get("wh") or "what").lower()
    owned = f"{name}{chr(39) if name.endswith('s') else chr(39) + 's'} {noun}"
    whole = f"the {noun} {link} {name}"
    yield f"{_capital(wh)} {be} {owned}?"
    yield f"{_capital(owned)} {be} {wh}?"
    yield f"Name {whole}."
    yield f"{_capital(whole)} {be} {wh}?"
    yield f"Tell me {wh} {whole} {be}."
    yield f"Please give me {whole}."
    yield f"Do you know {owned}?"
    yield f"{_capital(name)}: {wh} {be} the {noun}?"
    yield f"What can you tell me about {whole}?"


def _moved(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "WH is/did S ...?" with the question word at the end, or as a clause."""
    auxiliary = rf"(?P<aux>{_BE}|does|do|did|has|have|had|can|will)"
    match = re.fullmatch(
        rf"(?P<wh>{_WH}[^?]*?) {auxiliary} (?P<name>(?:[^?]*? )?[\"“']?{re.escape(subject)}[\"”']?)"
        r"(?P<rest> [^?]*)?\?",
        prompt,
        re.I,
    )
    if not match:
        return
    wh, aux, name, rest = (match[part] or "" for part in ("wh", "aux", "name", "rest"))
    wh, verb = wh[0].lower() + wh[1:], rest.strip()
    if not _begins_noun(name, subject):  # "Which team is led by S?": the question word is the sentence's subject
        yield f"Tell me {wh} {aux} {name}{rest}."
        yield f"Do you know {wh} {aux} {name}{rest}?"
        return
    if aux.lower() in ("does", "do", "did"):
        first, _, others = verb.partition(" ")
        if not first or others.startswith("and "):
            return
        said = f"{_inflected(first, aux.lower())}{others and ' ' + others}"
    else:
        said = f"{aux} {verb}".strip()
    yield f"Tell me {wh} {name} {said}."
    yield f"Do you know {wh} {name} {said}?"
    yield f"{_capital(name)} {said} {wh}?"


def _passive(prompt: str, subject: str) -> Iterator[str]:
    """Wordings of "Who wrote S?" and "Which company makes S?"."""
    match = re.fullmatch(
        rf"(?P<wh>who|(?:which|what) [\w ]*?\w) (?P<verb>\w+) (?P<name>(?:the )?[^?]*?{re.escape(subject)}[^?]*)\?",
        prompt,
        re.I,
    )
    if not match or re.fullmatch(rf"{_BE}|does|do|did|has|have|had|can|will", match["verb"], re.I):
        return
    wh, verb, name = match["wh"].lower(), match["verb"].lower(), match["name"]
    doer = "whom" if wh == "who" else wh
    participle, be = _participle(verb)
    if participle is None or not _begins_noun(name, subject):
        return
    if name.rstrip("\"”'").endswith(subject):
        yield f"{_capital(name)} {be} {participle} by {doer}?"
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
    return f"{verb[:-1]}ied" if re.search(r"[^aeiou]y$", verb) else f"{verb}ed"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
