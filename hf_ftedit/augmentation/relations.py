"""The bank of common relations that the package brings: ways to ask for each, and subjects that have it."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.augmentation.names import bare, renamed
from hf_ftedit.augmentation.nouns import YES_NO, is_noun
from hf_ftedit.augmentation.second_person import is_addressed
from hf_ftedit.augmentation.verbs import VERBS, inflected
from hf_ftedit.data import WORD, EditRecord

# Words that do not tell one relation from another.
FUNCTION_WORDS = frozenset(
    "a an the of for at in on to by from with is are was were be been does do did has have had it its that this which "
    "what you me please can could tell name know do's s currently right now".split()
)
# There "name" tells one: "What is the new name of {}?" is not "What is new of {}?".
_NAMES = re.compile(r"\b(?:first|last|middle|full|real|given|birth|old|new|original|former) name\b")
# Words beside a relation's that ask for another one: "Who was the first mayor of {}?", "Who was mayor of {} in 1990?".
_OTHER = re.compile(
    r"\d.*|first|second|third|last|former|previous|next|original|earliest|oldest|youngest|vice|deputy|assistant"
    r"|before|after|until|during"
)
_QUESTION = frozenset("who whom whose where when how why".split())
# What asks for a time, a number, a person, a place, a way or a reason: no relation that has no such wording.
_FIRST = r"(?:^|\b(?:me|know|say) )"
_SORTS = {
    "when": re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|decade|century))\b"),
    "when it was": re.compile(r"\bwhen (?:was|were|did)\b"),
    "when it is": re.compile(r"\bwhen (?:is|are|do|does|will)\b"),
    "number": re.compile(r"\bhow (?:many|much|old|tall|high|long|far|big|large|deep|fast|heavy)\b"),
    "who": re.compile(rf"{_FIRST}(?:by |for |from |to |with )?who(?:m|se)?\b"),
    "where": re.compile(rf"{_FIRST}where\b"),
    "how": re.compile(rf"{_FIRST}how (?:can|could|do|does|did|is|are|must|should|to|was|were)\b"),
    "why": re.compile(rf"{_FIRST}why\b"),
}
# Words that say what an answer is, and nothing else of the question.
_ANSWERS = frozenset("year date day month decade century time country city town place".split())
# "Which language is {} written in?" does not ask for who wrote it; but some words may stand for any answer.
_ASKED_FOR = re.compile(
    r"\b(?:which|what) ((?!kind|type|sort)(?:\w+ ){1,4}?)(?:is|are|was|were|does|do|did|has|have|can|could|will)\b"
)
_ANY = _ANSWERS | frozenset(
    "one person people man woman kind type sort thing name number place state nation region area room building street "
    "location position company organization organisation corporation society firm institution team group network "
    "politician".split()
)
_ANYTHING = frozenset("kind_of part_of located_in".split())  # whose answers are of all kinds
# "The opening hours of {} on Sundays" are not those of any day, nor is "the CEO of {} in Norway" its CEO; and another
# word with a capital is a name that the wordings would leave out.
_QUALIFIER = re.compile(
    r"(?<=\S )(?:after|at|before|by|during|for|from|in|into|on|per|since|to|with) (?:the |an? )?"
    r"(?!\{\}|(?:world|moment|present|total|country of|city of)\b)([a-zA-Z]\w*)|(?<=[^?.!] )([A-Z]\w+)"
)
# "Which county is {} located in Dundee in?" tells where it is, and asks for nothing else.
_PLACED = re.compile(r"(?<=\{\} )(located|situated) in(?: [A-Z]\w*)+")
# "The old address of {}" is another one, and "northern {}" is not {}.
_OLD = re.compile(
    r"\b(?:old|acting|interim)(?= \w+(?: \w+)? (?:of|in|for|at)\b)|(?<=\{\}['’]s )(?:old|acting|interim)\b"
    r"|\b(?:(?:north|south|east|west)(?:ern)?|central|new|old)(?= \{\})"
)
# "The minimum age for {}" is no age, "the billing address of {}" no place, but "the current CEO of {}" is its CEO.
_NOUN = re.compile(
    rf"\bthe ((?:(?!(?:{'|'.join(sorted(FUNCTION_WORDS - {'name'}))}|who)\b)[\w'’-]+ )+)"
    r"(?<!ed )(?:of|in|for|at|on|to|with|from) (?:the |an? )?\{\}"
    r"|\{\}['’]s? ((?:[\w’'-]+(?: |(?=[?.!]|$)))+)"
)
_SAME = frozenset(
    "actual correct current full latest main many much new newest official own present stable total whole".split()
)
_BE, _DO = frozenset("is are was were be been being".split()), frozenset("do does did".split())
_HAVE, _ARTICLES = frozenset("has have had".split()), frozenset("the a an".split())
_PREPOSITIONS = frozenset("at by for from in of on to with".split())
_OF = "(?:of|in|for|at)"
# "{}'s", "{} has", "{}, whose"
_OWNER = re.compile(r"['’]|,? ?(?:(?:who|which|that) )?(?:has|have|had|whose)\b")
# No wording of the bank is answered by yes or no: "Is the Acme museum open?" is not "When is the Acme museum open?"
_YES_NO = re.compile(
    rf"(?:{YES_NO.pattern}|(?:am|would)\b)(?! you (?:please )?(?:tell|give|name|say|know|find|have)\b)"
    r"(?!.*\b(?:or|who|whom|whose|what|which|where|when|how)\b).*\?",
    re.I,
)
_IT = re.compile(r"\b(?:does|did) it\b")
_INVERTED = re.compile(rf"(?:the )?\{{\}} (?:is|are|was|were) the .*\b{_OF}")  # "Oslo is the largest city in"
_DOING = re.compile(
    r"^(?:which|what) (?:[\w-]+ )*?(?:team|club|group|company|firm|school|college|university|band) (\w+(?:[^su]s|ed)) "
    r"(?:the )?\{\}\W*$"
)
# "Which team does {} coach?" is not "Which team does {} play for?"; in "does {} support end" the last is the verb.
_DONE = re.compile(
    r"\b(?:do|does|did|can|could|will) (?:the )?\{\} (?:(?:\w+ly|also|first|last|now|still) )?(?!be\b)"
    rf"(?:(\w+) (?=(?:{'|'.join(sorted(VERBS))})\b))?(\w+)"
)
# "{}'s main airport": its last word says what the question is about.
_OWNED = re.compile(r"\{\}['’]s? (?:\w+ )*?(\w+)(?=[?.!]|$| (?:is|are|was|were|on|in|at|for|to)\b)")
# "The price of Apple stock" is not what Apple costs.
_BEFORE = r"\b(?:at|buy|for|in|of|on) (an? )?"
_BEHIND = re.compile(rf"{_BEFORE}\{{\}} ([a-z]+)")
_CLOSE = 0.65  # least nearness at which a prompt counts as one of a relation's wordings


class Relation(NamedTuple):
    """Ways to ask for one relation, with `{}` for the subject."""

    name: str
    answer: str  # "who", "what", "where", "when" or "number"
    questions: Sequence[str]
    statements: Sequence[str]  # openings that the answer follows
    subjects: Sequence[str]  # well-known ones that have it

    @property
    def wordings(self) -> Sequence[str]:
        """Questions and statements."""
        return *self.questions, *self.statements


class Match(NamedTuple):
    """A prompt's relation, and the phrase that stands for the subject in it: "the novel The Glass Orchard"."""

    relation: Relation
    phrase: str


@lru_cache
def relations(of_model: bool = False) -> tuple[Relation, ...]:
    """All relations of the bank, those of the model itself before them where it is the subject."""
    own = bank("assistant.yaml") if of_model else []
    return tuple(Relation(**row) for row in (*own, *bank("relations.yaml")))


@lru_cache(maxsize=1)
def known_names() -> list[str]:
    """All subjects of the bank that are written as names."""
    return sorted({name for relation in relations() for name in relation.subjects if re.match(r"(?!The )[A-Z]", name)})


def same_kind(name: str) -> list[str]:
    """Subjects of all relations of the bank that have `name` as a subject: most of them are of its kind."""
    own = (relation.subjects for relation in relations() if bare(name) in map(bare, relation.subjects))
    return list(dict.fromkeys(chain.from_iterable(own)))


@lru_cache
def near_subjects(name: str) -> list[str]:
    """Subjects of other relations than `name`, those first that stand beside most of its own: the like of them."""
    own = next(relation.subjects for relation in relations(of_model=True) if relation.name == name)
    beside = Counter(chain.from_iterable(map(same_kind, own)))
    return [subject for subject, _ in beside.most_common() if subject not in own]


@lru_cache(maxsize=1 << 16)  # wordings, neighbors and questions of an edit ask, and of another that may ask the same
def relation_of(prompt: str, subject: str | None) -> Match | None:
    """The relation that a prompt asks for, by the words around its subject; `None` where none is near enough."""
    if not subject or subject not in prompt or _YES_NO.match(prompt) or language_of(prompt):
        return None
    phrases, of_model = [subject], is_addressed(subject)
    # An article or common noun before the subject belongs to it: "the Eiffel Tower", "the novel The Glass Orchard".
    before = r"\b[Tt]he (?:(?!(?:of|for|at|in|on|to|by|from|with|and)\b)[a-z]+ ){0,2}"
    if not of_model and (longer := re.search(rf"{before}{re.escape(subject)}(?!\w)", prompt)):
        whole = longer[0][0].lower() + longer[0][1:]
        if subject == subject.casefold():  # "printer", which does not stand alone
            phrases = [whole]
        elif compounds := _compounds(whole, prompt[longer.end() :]):
            # "The Berlin office" is not Berlin; but in "Who is the Acme CEO?" the noun is the relation's.
            phrases += compounds
        elif not whole.casefold().startswith("the the "):
            phrases.insert(0 if whole == f"the {subject}" else 1, whole)
    elif not of_model and (longer := re.search(rf"{_BEFORE}{re.escape(subject)}(?= [a-z])", prompt)):
        phrases += _compounds(f"{longer[1] or ''}{subject}", prompt[longer.end() :])
    # Of two that are as near, the one that has the noun: "How long is the film {}?"
    nearest = ((_nearest(renamed(prompt, phrase, "{}"), of_model), phrase) for phrase in phrases)
    (nearness, place), phrase = max(nearest, key=lambda near: near[0][0])
    relation = relations(of_model)[-place]
    # "What is the wifi password?" does not ask what kind of thing it is.
    is_value = relation.name == "kind_of" and re.match(r"(?:the|our|my) (?:[a-z]|.+ [a-z])", phrase)
    phrase = re.sub("^(?:Our|My) ", lambda owner: owner[0].lower(), phrase)
    return Match(relation, phrase) if nearness and not is_value else None


def _compounds(name: str, rest: str) -> list[str]:
    """A name with the nouns behind it: of "the Acme label printer" the label, and the printer."""
    names = []
    # Not "of what is it part", "part of".
    while behind := re.match(r" ([\w-]+)\b(?! of\b)(?: (\w+))?", rest):
        # "Plan" and "cost" may be verbs: in "the Pro plan cost" the last one is.
        if behind[1].islower() and not is_noun(behind[1]) and not {behind[1], behind[2]} <= VERBS:
            break
        names.append(name := f"{name} {behind[1]}")
        rest = rest[behind.end(1) :]
    return names


def _nearest(template: str, of_model: bool) -> tuple[float, int]:
    """Nearness of the nearest wording of the bank, 0 if none is near enough, and minus the place of its relation."""
    text, words = template.casefold(), words_of(template)
    owned, owners = _owners(text)
    needed, verbs = _beside(template)
    owners = {*filter(_OTHER.fullmatch, words), *_OLD.findall(text), *(owners & words)}
    needed &= words - _QUESTION
    asked_for = content_words(" ".join(_ASKED_FOR.findall(text)))
    is_for_any = not asked_for or bool(asked_for & _ANY)
    noun = text if re.match("how (?:many|much) ", text) else " ".join(chain(*_NOUN.findall(text)))
    modifiers = (content_words(noun) & words) - _SAME
    # Words that the prompt has beyond the wording's count half: "support email" asks for an email all the same.
    candidates = {wording for word in words for wording in _wordings(of_model).get(word, ())}
    usage = _usage(of_model)
    sorts, preposition = _sorts(template), _preposition(template)
    roles = {word: role for word, role in _roles(template).items() if not _OTHER.fullmatch(word)}
    # What the answer is, as in "which voice type", may stand anywhere.
    is_impersonal, is_inverted = bool(_IT.search(text)), bool(_INVERTED.fullmatch(text))
    answers = {*chain(*re.findall(r"\b(?:which|what) (\w+)(?: (\w+))?", text))}
    nearness = (
        # Of nothing but "what year" a wording is not near to a prompt that has more: "In what year did {} fall?"
        (_weight(words & other) / (_weight(other) + _weight(words - other) / (1 if other <= _ANSWERS else 2)), place)
        for other, place in candidates
        if owners <= other
        and needed <= usage[place].roles.keys()
        and (modifiers <= usage[place].roles.keys() or words == other)
        and (is_for_any or usage[place].is_of_all_kinds or not asked_for.isdisjoint(usage[place].roles))
        and sorts <= usage[place].sorts
        and is_impersonal <= usage[place].is_impersonal
        and is_inverted <= usage[place].is_inverted
    )
    near = [
        (
            near,
            _is_asked_so(roles, answers, owned | verbs, usage[place].roles),
            preposition in usage[place].prepositions,
            -place,
        )
        for near, place in nearness
        if near >= _CLOSE
    ]
    best, is_asked_so, _, place = max(near, default=(0.0, False, False, 0))
    return (best if is_asked_so else 0.0), place


def _owners(text: str) -> tuple[set[str], set[str]]:
    """Words that a noun of the subject belongs to, and with them its nouns behind a genitive."""
    # "The flag of {}": whatever the rest, the question is about the flag, and not about {}; or about the flag's color.
    chains = re.findall(rf"((?:\b\w+ {_OF} (?:the )?)+(?:\w+ (?:to|on|from|with) (?:the )?)?)\{{\}}", text)
    owned = {word for chain in chains for word in re.findall(r"(\w+) \w+ (?:the )?", chain)}
    return owned, owned.union(_OWNED.findall(text))


def _beside(template: str) -> tuple[set[str], set[str]]:
    """Words around the subject that a relation's wordings must have, and the verb of which it is the doer."""
    text = template.casefold()
    done = _DONE.search(text)
    nouns = filter(is_noun, (word for _, word in _BEHIND.findall(template)))
    names = map(str.casefold, chain(*_QUALIFIER.findall(_PLACED.sub(r"\1", template))))
    # "Which team owns {}?" does not ask whose team {} is.
    needed = {*_DOING.findall(text), *names, *nouns, *(done.groups("")[:1] if done else ())}
    return needed, {done[2]} if done else set()


def _weight(words: frozenset[str]) -> float:
    """Number of words; question words count half: "Where does {} sleep?" does not ask where it is."""
    return len(words) - len(words & _QUESTION) / 2


@lru_cache
def _wordings(of_model: bool) -> dict[str, set[tuple[frozenset[str], int]]]:
    """Words of each wording with the place of its relation, by each of those words."""
    wordings: dict[str, set[tuple[frozenset[str], int]]] = {}
    for place, relation in enumerate(relations(of_model)):
        for words in map(words_of, relation.wordings):
            for word in words:
                wordings.setdefault(word, set()).add((words, place))
    return wordings


class _Usage(NamedTuple):
    """What the wordings of a relation ask for, their prepositions, and how their words stand to the subject."""

    sorts: frozenset[str]
    prepositions: frozenset[str]
    roles: dict[str, set[str]]  # of each word
    is_impersonal: bool  # "How much does it cost to visit {}?" is not about what {} costs
    is_of_all_kinds: bool  # "Which drawer is {} located in?"
    is_inverted: bool  # "{} is the capital of"


@lru_cache
def _usage(of_model: bool) -> tuple[_Usage, ...]:
    """The usage of each relation."""

    def usage(relation: Relation) -> _Usage:
        roles: dict[str, set[str]] = {}
        for word, role in chain.from_iterable(_roles(wording).items() for wording in relation.wordings):
            roles.setdefault(word, set()).add(role)
        sorts = frozenset({relation.answer}).union(*map(_sorts, relation.wordings))
        prepositions = frozenset(map(_preposition, relation.wordings))
        is_impersonal = any(map(_IT.search, relation.wordings))
        is_inverted = any(_INVERTED.fullmatch(wording.casefold()) for wording in relation.wordings)
        return _Usage(sorts, prepositions, roles, is_impersonal, relation.name in _ANYTHING, is_inverted)

    return tuple(map(usage, relations(of_model)))


def _sorts(template: str) -> frozenset[str]:
    """What a wording asks for, by its words: "when", "number", ..., or nothing that they tell."""
    return frozenset(sort for sort, pattern in _SORTS.items() if pattern.search(template.casefold()))


def _preposition(template: str) -> str:
    """The first preposition behind the subject: nothing else tells "{} was born in" from "{} was born on"."""
    return next((word for word in WORD.findall(template.partition("{}")[2]) if word in _PREPOSITIONS), "")


def _is_asked_so(roles: dict[str, str], answers: set[str], strict: set[str], known: dict[str, set[str]]) -> bool:
    """Tell whether the strict words, and some word, stand to the subject as in a relation's wordings."""
    fits = {word: role in known[word] for word, role in roles.items() if word in known}
    own = [fits[word] for word in fits.keys() - answers] or fits.values()
    forms = ((roles[word], word, inflected(word, "does")) for word in strict & roles.keys())
    is_strict = all(role in {*known.get(word, ()), *known.get(form, ())} for role, word, form in forms)
    return is_strict and (not own or any(own))


def _roles(template: str) -> dict[str, str]:
    """
    How each word of a wording stands to the subject, as the same words in other places ask for something else.

    The CEO is "of" {} in "the CEO of {}", "{}'s CEO" and "{} has which CEO", but {} "is" the CEO in "Which firm is {}
    the CEO of?". Founded is "of" {} in "Who founded {}?", {} "is" founded, {} "does" it in "What has {} founded?", and
    in "founded by {}" it is "by" {}.
    """
    front, _, back = template.casefold().partition("{}")
    before, after = WORD.findall(front), WORD.findall(back)
    has_article = bool(before) and before[-1] in _ARTICLES
    last = (["", *before][: -1 if has_article else None])[-1]
    is_owner = _OWNER.match(back) or (last in ("in", "at", "of") and back.startswith(","))
    # "The {} CEO", but not "the {} comes from" or "does the {} weigh".
    is_compound = has_article and not _DO & {*before} and {*after[1:2]} <= _BE | {"?"}
    is_said = last in _BE or (_BE & {*before} and not _DO & {*before})

    def role(word: str) -> str:
        if word not in after:
            by = "by" if last == "by" else "did" if last in _DO else "of"
            return "whose" if "whose" in before[: before.index(word)] else by
        place = after.index(word)
        between = {*after[:place]}
        if is_owner or (is_compound and not place):
            return "of"
        if last in _HAVE and "been" not in between:
            return "does"
        return "is" if is_said or between & _BE or "by" in after[place + 1 : place + 2] else "does"

    return {word: role(word) for word in content_words(template)}


def words_of(template: str) -> frozenset[str]:
    """Words of a wording without those that do not tell one relation from another."""
    tokens = [word for word in WORD.findall(template) if word[0].isalnum()]
    words, small = frozenset(map(str.casefold, tokens)), FUNCTION_WORDS
    if "name" in words and _NAMES.search(template.casefold()):
        small = small - {"name"}
    if (capitals := [word for word in tokens if word[1:].isupper()]) and not template.isupper():
        small = small.difference(map(str.casefold, capitals))  # IT is no "it"
    return words - small or words


def asked_words(record: EditRecord) -> frozenset[str]:
    """Words of an edit's prompt that say what it asks of its subject."""
    return _asked_words(record.prompt, record.subject or " ")


@lru_cache(maxsize=2**16)  # each edit is compared with hundreds of the others
def _asked_words(prompt: str, subject: str) -> frozenset[str]:
    return content_words(renamed(prompt, subject, "{}"))


@lru_cache(maxsize=4096)  # every edit looks at the bank's wordings
def content_words(template: str) -> frozenset[str]:
    """Words of a wording that tell one relation from another, without "who" and "where"."""
    return words_of(template) - _QUESTION
