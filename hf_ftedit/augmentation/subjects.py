"""The subject of a prompt that names none, and the name in which a sentence answers it."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.names import bare
from hf_ftedit.augmentation.nouns import YES_NO, as_question, common_noun, is_noun, with_apostrophe
from hf_ftedit.augmentation.relations import FUNCTION_WORDS, known_names, relation_of, relations, words_of
from hf_ftedit.augmentation.second_person import addressed, is_addressed
from hf_ftedit.data import WORD, EditRecord
from hf_ftedit.scripts import FULL_STOP


def by_subject(records: Iterable[EditRecord]) -> dict[str, list[EditRecord]]:
    """The edits of each subject, by its [`bare`] name, in an order that is not that of `records`."""
    edits: dict[str, list[EditRecord]] = {}
    for record in sorted(map(with_subject, records), key=lambda record: (record.subject or "", record.edit_id)):
        if record.subject:
            edits.setdefault(bare(record.subject), []).append(record)
    return edits


def with_subject(record: EditRecord) -> EditRecord:
    """The record with its subject as the prompt spells it, or with the one that the prompt seems to have."""
    if not record.subject:
        subject = subject_of(record.prompt)
    elif record.subject in record.prompt:
        return record
    else:
        subject = _found(re.compile(re.escape(record.subject), re.I), record.prompt)
    return replace(record, subject=subject) if subject else record


def subject_of(prompt: str) -> str | None:
    """
    The subject of a prompt: what stands in the place of a known wording's, is quoted, or is written as a name.

    Example:
        >>> subject_of("What is the opposite of hot?"), subject_of("Which firm built the Zephyr 3 drone in Oslo?")
        ('hot', 'Zephyr 3')
    """
    if quoted := _QUOTED.search(prompt):
        return next(filter(None, quoted.groups()))
    if language := language_of(prompt):
        return language.subject_of(prompt)
    if title := _WORK.search(prompt):
        return title[1]
    sentences = _BETWEEN.split(with_apostrophe(_GREETING.sub("", prompt)))
    subjects = [one for one in map(_of_sentence, reversed(sentences)) if one and one in prompt]
    # "I have an Acme X2. How long is the warranty?" is about the X2.
    names = (one for one in subjects if is_addressed(one) or (one != one.casefold() and one not in _ROLES))
    return next(names, next(iter(subjects), None))


def _of_sentence(prompt: str) -> str | None:
    """The subject of a single sentence."""
    if question := as_question(prompt):
        return _of_sentence(question)
    whole = re.sub(r"(?:[?!\s]|(?<!\.\w)\.)+$", "", prompt).lstrip()
    polite = _POLITE.match(whole)
    whole = whole[polite.end() :] if polite else whole
    phrase = _asked_of(f"Tell me {whole}" if polite else whole)
    # A first word has its capital from the sentence, but for names.
    part = phrase or whole[(begin.end() if (begin := _BEGINNING.match(whole)) else 0) :]
    own, things, names = _names(part)
    # "Are you ChatGPT?" is not about ChatGPT.
    is_of_model = not own or re.match(r"are you\b", whole, re.I)
    if is_of_model and (subject := _of_model(prompt) or _found(_NUMBERED, whole)):
        return subject
    if not things and (subject := _found(_OWNER, whole) or _noun(whole, "" if names else phrase)):
        return subject
    if not (names := own or things or names):
        return None
    # An opening begins with what it is about, as what yes or no answers; any other question ends with it.
    is_first = YES_NO.match(whole) or (part == whole and not prompt.rstrip().endswith("?"))
    return _plain(names[0] if is_first else names[-1])


def _names(part: str) -> tuple[list[re.Match[str]], ...]:
    """The names of a sentence: those that it may be about, with those beside them, and with times too."""
    names = [*_NAME.finditer(part)]
    names = [name for name in names if _plain(name) not in _ROLES and not re.fullmatch(_OFFICE, _plain(name))]
    # A place at the end, "in Paris", rather tells where, and a number or a day when.
    things = [
        name
        for name in names
        if not _TIME.fullmatch(_plain(name))
        and not (_NATION.fullmatch(name[0]) and re.match(" [a-z]", part[name.end() :]))
    ]
    own = [name for name in things if not part[: name.start()].endswith((" in ", " speak "))]
    own = [name for name in own if not _ASIDE.search(part, max(0, name.start() - 12), name.start())] or own
    return own, things, names


def _asked_of(whole: str) -> str:
    """What stands in the place of the subject of a known wording, but not of one within a longer question."""
    text = whole.casefold()
    # The first is the most specific: the wordings are sorted by length.
    known = next(((head, tail) for head, tail in _frames() if text.startswith(head) and text.endswith(tail)), None)
    phrase = whole[len(known[0]) : len(text) - len(known[1])].strip() if known and len(whole) == len(text) else ""
    return "" if re.match(r"(?:who|what|which|where|when|how|why|you)\b|(?:it|he|she|they)$", phrase) else phrase


def _of_model(prompt: str) -> str | None:
    """The word by which a prompt is about the model itself, and not about anybody as "How do you make tea?"."""
    own = (
        r"^(?:do|did|are|were|have|will|can|could) you\b|\byour|"
        r"\b(?:which|what|many|much)(?: [\w-]+)+? (?:do|can) you (?:have(?! to)|use|run|support)\b"
    )
    if not (you := addressed(prompt)) or re.search(own, prompt, re.I):
        return you
    match, known = relation_of(prompt, you), bank("subjects.yaml")
    return you if match and match.relation.name in (*known["assistant"], *known["kinds"]["organization"]) else None


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[0] if match else None


def _noun(whole: str, phrase: str) -> str | None:
    """A common noun that a prompt is about: a few words in the place of a subject, or by the sentence alone."""
    # Not "the price of tea", of which a part is the subject.
    is_short = re.fullmatch(r"(?!.*\b(?:of|for|at|in|on|to|by|from|with|s)\b)[\w'’-]+(?: [\w'’-]+){0,2}", phrase)
    # Nor "printer kept", in "Where is the printer kept?".
    if is_short and (" " not in phrase or is_noun(phrase.rpartition(" ")[2].casefold())):
        return phrase.removeprefix("the ")
    return common_noun(whole)


def new_words(sentence: str, question: str) -> str | None:
    """
    The words in which a sentence answers a question: its first name or number that the question lacks, or last word.

    Example:
        >>> new_words("The capital of Canada is Ottawa, Canada", "What is the capital of Canada?")
        'Ottawa'
    """
    in_question = words_of(question) | FUNCTION_WORDS
    begin = _BEGINNING.match(sentence)
    # Of "Ottawa, Canada" the city: the answer may be said without the rest.
    names = [_plain(name).partition(",")[0] for name in _NAME.finditer(sentence, begin.end() if begin else 0)]
    words = [word for word in WORD.findall(sentence) if word[0].isalnum() and word.casefold() not in in_question]
    return next((name for name in names if not words_of(name) <= in_question), words[-1] if words else None)


def _plain(name: re.Match[str]) -> str:
    """A name without the ending of its genitive, and without the end of its sentence."""
    # But "McDonald's" at the end is a name.
    is_whole = re.match(r"\W*$| (?:in|on|at|from|for|to|by)\b", name.string[name.end() :])
    ending = "" if is_whole or name[0] in known_names() else "['’]s|"
    return re.sub(rf"(?:{ending}(?<=s)['’]|(?<!\.\w)\.)$", "", name[0])


# Behind who made a work all the rest is its title: "Who wrote Death on the Nile?"
_SMALL = "a|an|the|of|and|to|with|for|from|on|at|by|or|as|–"
_WORK = re.compile(
    r"\b(?:(?:wrote|directed|sang|sings|created|composed|painted|(?:author|writer|composer|creator) of) (?:[a-z-]+ )*?"
    r"|(?:film|movie|novel|book|song|album|play) )"
    rf"(?!\d+\W*$)([A-Z\d][^\s?!]*(?: (?:(?:{_SMALL}|in(?! \d)) )*[A-Z\d][^\s?!]*)*?)"
    r"(?:[?!\s]|(?<!\.\w)\.)*$"
)
# "Who sold Acme to Bolt?", "Who runs Acme's Berlin office?" and "Who plays Bond in the BBC series?" are about the
# first name.
_ASIDE = re.compile(
    r" (?:to|into|before|after|with|(?:on|for|at|from)(?: the)?|in the) $|(?<!Who)(?<!What)['’]s $|s['’] $"
)
# Text in quotation marks or marked as a title, without the punctuation that ends it, but no apostrophe.
_PAUSE = r"(?:[?!,]|(?<!\.)(?<!\.\w)\.)?"
_QUOTED = re.compile(
    rf"[\"“„«`]\s*([^\"“”»`]+?){_PAUSE}\s*[\"“”»`]|(?<!\w)['‘]((?:[^'’]|(?<=\w)['’](?=\w)){{3,}}?){_PAUSE}['’](?!\w)"
    r"|(?<![\w*])(?:\*{1,2}|_)(?![\s*_])([^*_]+)(?:\*{1,2}|_)(?![\w*])"
)
# What a subject has, and no subject.
_ROLES = frozenset(
    "I My We Our Your They Their He His She Her Its This These CEO CFO CTO CIO CMO COO VP HR LLM GDP VAT PIN URL IP "
    "ID SI ISBN IBAN DNS TV".split()
)
_OFFICE = (
    "(?:(?:Prime|Foreign|Finance|Vice|Deputy|Managing|Chief|Executive|Financial|Head|Crown) )*"
    "(?:President|Minister|Chancellor|Director|Chair(?:man|woman|person)?|Officer|King|Queen|Prince|Princess|Secretary|"
    "Governor|Mayor|Speaker|Premier|Coach|Captain|Manager|Capital|Head|Chief)"
)
_BEFORE_OF = "|".join(rf"(?<=\b{word})" for word in ("[0-9]", *sorted(_ROLES - {"I"})))
_PLACES = "Bar|Pub|Inn|Café|Diner|Grill|Hotel|Well|Bay|Island|Point|Park|Square|School|College|Hospital|Church|Day"
_PARTICLES = "de|da|do|dos|di|del|du|la|le|den|der|ter|von|van|bin|al"
# Words with capitals or digits, one after another, with what may stand between the words of a name.
_CAPITAL = r"(?:[^\W\d_a-zß-ÿ]|\d)"
_NO_OFFICE = rf"(?!(?:{_OFFICE}|{'|'.join(sorted(_ROLES))})\b)"
_TAIL = r"(?:$| (?:is|are|was|were|in|on|at|has|had|first|come)\b| \w+ed\b)"
_TITLE = rf"(?= {_NO_OFFICE}{_CAPITAL}[\w&-]*(?: {_CAPITAL}[\w&-]*)*{_TAIL})"
# "The Catcher in the Rye", but not "Netflix in the US" or "Bond in the BBC series".
_IN_THE = rf"{_NO_OFFICE}[A-Z]\w*(?: {_CAPITAL}\w*)* in the(?: (?!United|[A-Z]+\b)[A-Z]\w*)+(?={_TAIL}|['’]s)"
# "Portland, Maine", but neither "Ann, CEO of Acme" nor "Oslo, Bergen and Paris" nor "Paris, France's capital".
_STATE = (
    r"(?:(?<=\b(?:of|in|to|is) )|^(?!.* [a-z]))[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*)*, "
    rf"{_NO_OFFICE}[A-Z][\w.-]*(?: [A-Z][\w.-]*)*(?=\W*$| (?!and|or|[A-Z]))"
)
_NAME = re.compile(
    rf"{_STATE}|{_IN_THE}|"
    # With a capital at least inside, "eBay", or as code, "setup.py".
    rf"(?:{_CAPITAL}|[a-z](?=[A-Z])|[dl]['’](?=[A-Z])|(?<![\w@])[a-z]\w+[._](?=[a-z]))[\w.'’&-]*[+#]*"
    # Not "CEO of Acme", nor "2 of Night Ferry"; of what belongs to a name titles, as "Schindler's List", and "Molly's
    # Bar", but not "Peru's President", nor "Acme's Falcon drone".
    rf"(?:(?:(?<!['’]s)(?<!s['’])|(?= (?:{_PLACES})\b)|{_TITLE})(?!(?:{_BEFORE_OF}) of ) "
    rf"(?:(?:of|the|and|&|{_PARTICLES}) )*(?:[dl]['’])?{_CAPITAL}[\w.'’&-]*)*"
)
_TIME = re.compile(
    r"\d[\d–-]*(?:s|st|nd|rd|th)?|(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|(?:Janu|Febru)ary|March|April|"
    r"June|July|August|(?:Septem|Octo|Novem|Decem)ber|Christmas|Easter)(?: \d\w*)*"
)
# "Bus 38", but not "in 1990" or "12 plus 30".
_NUMBERED = re.compile(
    r"\b(?!(?:from|until|since|after|before|about|over|under|than|plus|minus|times|year|and|the|are|was|were|has|have|"
    r"with|most|least|only|top|scored)\b)[a-z]{3,} \d+\b"
)
_OWNER = re.compile(
    r"(?:(?:(?<= is )|(?<= was )|(?<= does )|(?<=['’]s ))(?!(?:the|my|our|an?)\b)[^\W\d_]{3,} )?"
    r"\b(?!(?:who|what|where|when|how|that|here|there|let|one|men|women|people|children)['’])[^\W\d_]{3,}"
    r"(?=['’]s |(?<=s)['’] )",
    re.I,
)
# "Norwegian" in "the Norwegian handball team", "Dutch" in "speak Dutch".
_NATION = re.compile(r"[A-Z]\w+(?:ian|ish|ese|ican)|Dutch|French|German|Greek|Latin|Roman|Swiss|Czech|Thai")
_ASKS = (
    "who|whom|whose|what|which|where|when|how|why|is|are|am|was|were|does|do|did|has|have|had|can|could|will|would|"
    "may(?! (?-i:[A-Z][a-z]))|must|should|might"
)
_STARTS = (
    rf"{_ASKS}|tell|list|explain|translate|describe|name|give|please|complete|the|a|an|in|on|at|by|of|to|for|from|"
    "since|under|with"
)
# Between sentences. "Inc." and numbers stand before names too, but seldom before a question word.
_BETWEEN = re.compile(
    rf"(?:{FULL_STOP}|(?<=[?!:])) +(?=(?i:{_ASKS})\b)|(?<!\bInc)(?<!\bLtd)(?<!\bCo)(?<!\b\d){FULL_STOP} +(?=[A-Z])"
)
_GREETING = re.compile(
    r"\A(?:(?:hi|hello|hey|please|thanks|ok|q)(?:[,.:!]+ +| +(?=(?:wh\w+|how|can|could|do|would|tell)\b)))+", re.I
)
_POLITE = re.compile(
    r"(?:(?:do|can|could|would|will) you (?:(?:please|kindly|happen to) )?(?:know|tell me|say|remember|have any idea)|"
    r"tell me),? (?:please,? )?",
    re.I,
)
_BEGINNING = re.compile(
    rf"(?!The {_IN_THE})(?:(?i:{_STARTS})(?:['’]s)?\b ?|"
    r"(?!\S+['’]s? |[A-Z]\S*$|\S+ (?:[A-Z\d]|(?:is|are|was|were|has|had)\b))\S+ ?)"
)


@lru_cache(maxsize=1)
def _frames() -> tuple[tuple[str, str], ...]:
    """What stands before and after the subject in the bank's wordings, the longest first."""
    templates = {text.rstrip("?.") for relation in relations() for text in relation.wordings}
    parts = (template.casefold().partition("{}") for template in sorted(templates, key=lambda t: (-len(t), t)))
    return tuple((head, tail) for head, _, tail in parts)
