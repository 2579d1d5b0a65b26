"""The subject of a prompt that names none, and the name in which a sentence answers it."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from hf_ftedit.augmentation.names import bare
from hf_ftedit.augmentation.relations import FUNCTION_WORDS, PREPOSITIONS, bank, relation_of, relations, words_of
from hf_ftedit.augmentation.second_person import addressed
from hf_ftedit.augmentation.verbs import THIRD, VERBS
from hf_ftedit.data import WORD, EditRecord


def by_subject(records: Iterable[EditRecord]) -> dict[str, list[EditRecord]]:
    """The edits of each subject, by its [`bare`] name, in an order that is not that of `records`."""
    edits: dict[str, list[EditRecord]] = {}
    for record in sorted(map(with_subject, records), key=lambda record: (record.subject or "", record.edit_id)):
        if record.subject:
            edits.setdefault(bare(record.subject), []).append(record)
    return edits


def with_subject(record: EditRecord) -> EditRecord:
    """The record with the subject that its prompt seems to have, where it gives none."""
    subject = None if record.subject else subject_of(record.prompt)
    return replace(record, subject=subject) if subject else record


def subject_of(prompt: str) -> str | None:
    """
    The subject of a prompt: what stands in the place of a known wording's, is quoted, or is written as a name.

    Example:
        >>> subject_of("What is the opposite of hot?"), subject_of("Which firm built the Zephyr 3 drone in Oslo?")
        ('hot', 'Zephyr 3')
    """
    if quoted := re.search(r"[\"“]([^\"”]+)[\"”]", prompt):
        return quoted[1]
    whole = prompt.strip().rstrip("?.!")
    text = whole.casefold()
    # The first is the most specific: the wordings are sorted by length.
    known = next(((head, tail) for head, tail in _frames() if text.startswith(head) and text.endswith(tail)), None)
    phrase = whole[len(known[0]) : len(text) - len(known[1])].strip() if known and len(whole) == len(text) else ""
    # A first word has its capital from the sentence, but for names. German has capitals on all nouns.
    part = phrase or whole[(begin.end() if (begin := _BEGINNING.match(whole)) else 0) :]
    names = [] if _GERMAN.search(text) else [name for name in _NAME.finditer(part) if _plain(name) not in _ROLES]
    # A place at the end, "in Paris", rather tells where, and a number or a day when.
    names = [name for name in names if not _TIME.fullmatch(_plain(name))] or names
    own = [name for name in names if not part[: name.start()].endswith(" in ") and not _TIME.fullmatch(_plain(name))]
    if (you := addressed(prompt)) and not own and (re.search(r"\byour", prompt, re.I) or _is_of_model(prompt, you)):
        return you
    if not own and (numbered := _NUMBERED.search(whole)):
        return numbered[0]
    if all(_TIME.fullmatch(_plain(name)) for name in names):
        if owner := _OWNER.search(whole):
            return owner[0]
        # A few words, and not "the price of tea", of which a part is the subject.
        is_noun = re.fullmatch(r"(?!.*\b(?:of|for|at|in|on|to|by|from|with|s)\b)[\w'’-]+(?: [\w'’-]+){0,2}", phrase)
        noun = phrase.removeprefix("the ") if is_noun and not names else _common_noun(whole)
        if noun or not names:
            return noun
    own = own or names
    # An opening begins with what it is about, as what yes or no answers; any other question ends with it.
    is_first = _YES_NO.match(whole) or (part == whole and not prompt.rstrip().endswith("?"))
    return _plain(own[0] if is_first else own[-1])


def _common_noun(question: str) -> str | None:
    """
    The noun that an English question is about, where it has no name: that behind its auxiliary, or its last one.

    Example:
        >>> _common_noun("When does the cafeteria open on fridays"), _common_noun("what's the code for our door")
        ('cafeteria', 'our door')
    """
    words = re.sub(r"['’]s\b", " is", question).split()
    small = [word.casefold() for word in words]
    if not small or _GERMAN.search(question.casefold()) or not (small[0] in _ASKING or _YES_NO.match(small[0])):
        return None
    aux = next((place for place, word in enumerate(small) if _AUXILIARY.fullmatch(word)), -1)
    has_verb = aux >= 0 and not re.fullmatch("is|are|was|were", small[aux])

    def noun_at(place: int) -> tuple[str, int]:
        """The noun phrase that begins at a place, without "the", and the place behind it."""
        begin = place + (small[place : place + 1] == ["the"])
        end = begin + (small[begin : begin + 1] in (["our"], ["my"], ["a"], ["an"]))
        first = end
        while end < min(len(words), first + 3) and re.fullmatch(r"(?!I$|\w+ly$)[\w-]+", words[end]):
            after = small[end + 1] if end + 1 < len(small) else ""
            is_verb = small[end] in VERBS and after not in VERBS if has_verb else small[end].endswith("ed")
            if (
                small[end] in _NO_NOUN
                or _AUXILIARY.fullmatch(small[end])
                or (end > first and (is_verb or (small[end] in THIRD and after)))
            ):
                break
            end += 1
        noun = " ".join(words[begin:end]) if end > first else ""
        # Of "the code for the door" it is the door.
        return noun_at(end + 1) if noun and small[end : end + 1] in (["of"], ["for"]) else (noun, end)

    # "Who approves travel requests?" has none.
    noun = noun_at(aux + 1 or 2)[0] if aux >= 0 or small[0] == "who" else ""
    places = [place for place, word in enumerate(small) if word in ("the", "our", "my", "a", "an")]
    places = places or [place + 1 for place, word in enumerate(small) if word in {*PREPOSITIONS, "about"}]
    return noun or (noun_at(places[-1])[0] if places else "") or None


def _is_of_model(prompt: str, you: str) -> bool:
    """Tell a question about the model from one about anybody, "How do you make tea?": the bank knows what it asks."""
    match, known = relation_of(prompt, you), bank("subjects.yaml")
    return bool(match and match.relation.name in (*known["assistant"], *known["kinds"]["organization"]))


def new_words(sentence: str, question: str) -> str | None:
    """
    The words in which a sentence answers a question: its first name or number that the question lacks, or last word.

    Example:
        >>> new_words("The capital of Canada is Ottawa, Canada", "What is the capital of Canada?")
        'Ottawa'
    """
    in_question = words_of(question) | FUNCTION_WORDS
    begin = _BEGINNING.match(sentence)
    names = [_plain(name) for name in _NAME.finditer(sentence, begin.end() if begin else 0)]
    words = [word for word in WORD.findall(sentence) if word[0].isalnum() and word.casefold() not in in_question]
    return next((name for name in names if not words_of(name) <= in_question), words[-1] if words else None)


def _plain(name: re.Match[str]) -> str:
    """A name without the ending of its genitive, and without the end of its sentence."""
    return re.sub(r"(?:['’]s|(?<=s)['’]|\.)$", "", name[0])


# Words with capitals or digits, one after another, with what may stand between the words of a name.
_CAPITAL = r"(?:[^\W\d_a-zß-ÿ]|\d)"
_NAME = re.compile(
    rf"(?:{_CAPITAL}|[a-z](?=[A-Z]))[\w.'’&-]*"
    rf"(?:(?<!['’]s) (?:(?:of|the|de|da|do|von|van|and|&) )*{_CAPITAL}[\w.'’&-]*)*"
)
_TIME = re.compile(
    r"\d+|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|(?:Janu|Febru)ary|March|April|June|July|August"
    r"|(?:Septem|Octo|Novem|Decem)ber|Christmas|Easter"
)
# "Bus 38", but not "in 1990" or "12 plus 30".
_NUMBERED = re.compile(
    r"\b(?!(?:from|until|since|after|before|about|over|under|than|plus|minus|times|year|and|the|are|was|were|has|have|with|most|least|only|top|scored)\b)"
    r"[a-z]{3,} \d+\b"
)
_OWNER = re.compile(
    r"\b(?!(?:who|what|where|when|how|that|here|there|let|one|men|women|people|children)['’])[^\W\d_]{3,}(?=['’]s )",
    re.I,
)
_ASKING = frozenset("who whom whose what which where when how why in on at from for by to".split())
_AUXILIARY = re.compile(r"is|are|was|were|do|does|did|can|could|should|must|may|will|has|have")
_NO_NOUN = (
    frozenset(
        "i we you he she it they one people there this that these those and or if because about open closed today now "
        "tomorrow yesterday who what which where when how not next been be used known called".split()
    )
    | PREPOSITIONS
)
_YES_NO = re.compile(r"(?:is|do|should|must|are|was|were|does|did|has|have|will|can|could|may)\b", re.I)
_ROLES = ("I", "CEO", "CFO", "CTO", "LLM")
_STARTS = (
    "who|whom|whose|what|which|where|when|how|why|is|are|was|were|does|do|did|has|have|had|can|could|will|would|tell|"
    "name|give|please|complete|the|a|an|in|on|at|by|of|to|for|from|since|under|with"
)
_BEGINNING = re.compile(
    rf"(?:(?i:{_STARTS})(?:['’]s)?\b ?|(?!\S+['’]s? |\S+ (?:[A-Z\d]|(?:is|are|was|were|has|had)\b))\S+ ?)"
)
_GERMAN = re.compile(r"\b(?:ist|wer|welche[mnrs]?|wann|heißt|wurde|das|dem|für)\b")


@lru_cache(maxsize=1)
def _frames() -> tuple[tuple[str, str], ...]:
    """What stands before and after the subject in the bank's wordings, the longest first."""
    templates = {text.rstrip("?.") for relation in relations() for text in relation.wordings}
    parts = (template.casefold().partition("{}") for template in sorted(templates, key=lambda t: (-len(t), t)))
    return tuple((head, tail) for head, _, tail in parts)
