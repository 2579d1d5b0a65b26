"""English verbs: which words are some, and their forms."""

import re

# Past tense and participle of frequent irregular verbs; all others end in -ed.
_FORMS = (
    "be was been|bear bore born|beat beat beaten|begin began begun|bind bound bound|break broke broken|"
    "breed bred bred|bring brought brought|broadcast broadcast broadcast|build built built|buy bought bought|"
    "cast cast cast|catch caught caught|choose chose chosen|come came come|cost cost cost|cut cut cut|"
    "do did done|draw drew drawn|"
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
IRREGULAR = {verb: (past, participle) for verb, past, participle in map(str.split, _FORMS.split("|"))}
# Regular verbs that questions about facts use. Another word after a name may be a noun: "the Acme office".
_REGULAR = frozenset(
    "accept adopt air allow appear apply approve arrive ask assign attach attend award base believe belong border "
    "call cancel carry cause celebrate change charge close collect commute compete compose confirm connect "
    "consist contain control cover create cross debut deliver depart depend deploy design develop die differ "
    "direct discover donate earn employ end enroll enter exist expand expect expire export face finish fix flow "
    "follow found graduate happen help hire host import include inspire insure invent invest involve join land "
    "last launch lie like listen live locate look love maintain manage manufacture marry measure mention merge "
    "move name need occur offer open operate orbit order organize own paint participate pass perform plan play "
    "prefer premiere produce protect provide publish raise reach receive record release rely remain renew replace "
    "report represent require reside resign restart retire return rule serve ship sign specialize start stay stop "
    "study submit succeed support symbolize terminate train transfer translate travel treat use verify visit vote "
    "wait want weigh work worship".split()
)
_MORE = frozenset("advertise amount answer become count deal practice save trade welcome".split())
VERBS = _REGULAR | IRREGULAR.keys()
_DOUBLED = re.compile(
    r"(?:[^aeiou]*[aeiou][^aeiouwxy]|control|permit|admit|commit|submit|omit|transmit|refer|prefer|transfer|occur|"
    r"patrol|equip|compel|expel|propel)"
)
_PAST = dict(IRREGULAR.values())  # participles by past forms


def passive_of(verb: str) -> tuple[str | None, str]:
    """The participle of a verb as it stands in a question, and the form of "be" before it."""
    if verb in _PAST:
        return _PAST[verb], "was"
    if verb.endswith("ed"):
        return verb, "was"
    base = next((base for base in (verb[:-1], verb[:-2]) if verb.endswith("s") and base in IRREGULAR), None)
    if base:
        return IRREGULAR[base][1], "is"
    return (_with_ed(verb[:-1]), "is") if verb.endswith("s") and not verb.endswith("ss") else (None, "is")


def inflected(verb: str, auxiliary: str) -> str:
    """A verb without its auxiliary: "did pass" is "passed", "does hold" is "holds"."""
    if auxiliary == "did":
        return IRREGULAR[verb][0] if verb in IRREGULAR else _with_ed(verb)
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


THIRD = frozenset(inflected(verb, "does") for verb in VERBS)  # "goes"
PARTICIPLES = frozenset({*(participle for _, participle in IRREGULAR.values()), *map(_with_ed, _REGULAR)})
_PLURAL = {"is": "are", "was": "were", "has": "have", **{inflected(verb, "does"): verb for verb in VERBS | _MORE}}
_AUXILIARY = {"is": "are", "was": "were", "does": "do", "has": "have"}
_AUXILIARY |= {one.capitalize(): many.capitalize() for one, many in _AUXILIARY.items()}
# There a verb does not say what the name does: "the top job at {} is held by", "who made {} is".
NO_SUBJECT = "(?<!ed )" + "".join(
    f"(?<! {word} )" for word in "of in at for to by on with from behind inside under up made built".split()
)
_MANY = re.compile(r"(?:(?:the|our|my) )?(?!\w+is$)[a-z][a-z -]*[^su]s")  # no "redis"


def is_plural(noun: str) -> bool:
    """Tell whether a common noun means several things, as "our expense reports" does, and no name."""
    return bool(_MANY.fullmatch(noun))


def agreeing(template: str, name: str) -> str:
    """
    A template with a name in the place of `{}`, its verbs in the plural where the name is one, or "you".

    Example:
        >>> agreeing("When is {} due?", "reports"), agreeing("{} costs", "you"), agreeing("What does {} do?", "Boots")
        ('When are reports due?', 'you cost', 'What does Boots do?')
    """
    if is_plural(name) or name == "you":
        template = re.sub(rf"{NO_SUBJECT}\{{\}} (\w+)", lambda verb: f"{{}} {_PLURAL.get(verb[1], verb[1])}", template)
        template = re.sub(
            rf"\b({'|'.join(_AUXILIARY)}) \{{\}}(?!['’])", lambda verb: f"{_AUXILIARY[verb[1]]} {{}}", template
        )
    return template.replace("{}", name)
