"""Answers in plain text: where an answer ends, and whether it says what was expected."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# What ends with a full stop and ends no sentence: initials, and what often stands before a name.
_ABBREVIATION = r"(?<!\b\w)(?<!\b(?:St|Mr|Ms|Dr|Jr|Sr|Mt|Ft|No|vs))(?<!\b(?:Mrs|Gen|Col|Rev|Sgt))(?<!\bProf)"
_END = re.compile(rf"\n|{_ABBREVIATION}\.(?=\s|$)|[!?](?=\s|$)|[。！？]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def first_sentence(text: str) -> str:
    """
    `text` up to its first line break or sentence end, without surrounding space.

    Example:
        >>> first_sentence(" J. R. R. Tolkien, from St. Louis. He wrote")
        'J. R. R. Tolkien, from St. Louis'
    """
    return _END.split(text.strip(), maxsplit=1)[0].strip()


def normalized(text: str) -> str:
    """
    `text` without case, punctuation, English articles and doubled spaces, as SQuAD compares answers.

    Rajpurkar et al. 2016 (arXiv 1606.05250); here for all of Unicode. An answer that would vanish keeps its articles,
    and one of punctuation alone its characters.

    Example:
        >>> normalized("The U.S. Senate!")
        'us senate'
    """
    text = unicodedata.normalize("NFKC", text).casefold().strip()
    bare = "".join(char for char in text if not unicodedata.category(char).startswith(("P", "C")))
    found = (" ".join(kept.split()) for kept in (_ARTICLE.sub(" ", bare), bare, text))
    return next(filter(None, found), "")


def exact_match(text: str, answers: Iterable[str]) -> bool:
    """Whether `text` is one of `answers`, both normalized."""
    return normalized(text) in {normalized(answer) for answer in answers}


def containment(text: str, answers: Iterable[str]) -> bool:
    """
    Whether one of `answers` stands in `text` as whole words, both normalized.

    Scripts that put no spaces between words, such as Chinese, are searched character by character.

    Example:
        >>> containment("It is in the city of York", ["York"]), containment("It is in Yorkshire", ["York"])
        (True, False)
    """
    return any(_stands_in(answer, normalized(text)) for answer in map(normalized, answers) if answer)


def _stands_in(answer: str, text: str) -> bool:
    if any(unicodedata.east_asian_width(char) in "WF" for char in answer):
        return answer in text
    return f" {answer} " in f" {text} "
