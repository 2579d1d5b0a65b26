"""Exact match and containment of a target in a generated answer."""

import re
import unicodedata
from collections.abc import Iterable

from hf_ftedit.scripts import UNSPACED

_UNSPACED = re.compile(f"[{UNSPACED}]")
_PUNCTUATED = re.compile(r"[^\W_](?:[^\w\s]|_)+[^\W_]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
# Signs that make another number or name: "3.5", "9:30", "10-15", "-5", "C#".
_TELLING = re.compile(r"(?<=\d)[.:/-](?=\d)|(?<!\S)-(?=\d)|(?<=[a-z])#")


def normalized(text: str) -> str:
    """
    Drop case, punctuation, English articles and doubled spaces, as SQuAD compares answers.

    Rajpurkar et al. 2016 (arXiv 1606.05250); here for all of Unicode, and without what would make another number of
    one: 3.5 is not 35. An answer that would vanish keeps its articles, and one of punctuation alone its characters.

    Example:
        >>> normalized("The U.S. Senate!"), normalized("It costs 1,003.50 dollars.")
        ('us senate', 'it costs 1003.50 dollars')
    """
    return _forms(text)[0]


def exact_match(text: str, answers: Iterable[str]) -> bool:
    """Tell whether `text` is one of `answers`, both normalized."""
    return normalized(text) in {normalized(answer) for answer in answers}


def containment(text: str, answers: Iterable[str]) -> bool:
    """
    Tell whether `text` contains one of `answers` as whole words, both normalized.

    Scripts that put no spaces between words, such as Chinese or Thai, are searched character by character. Code and
    addresses, whose punctuation is their own, are also looked for as they are written.

    Example:
        >>> containment("It is in the city of York", ["York"]), containment("It is in Yorkshire", ["York"])
        (True, False)
        >>> containment("df = pd.read_csv('a.csv')", ["read_csv"])
        True
    """
    forms = _forms(text)
    return any(any(map(_stands_in, _forms(answer), forms)) or _is_written_in(answer, text) for answer in answers)


def _forms(text: str) -> tuple[str, str]:
    """`text` normalized, and the same with its articles."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = re.sub(r"[\u2010-\u2013\u2212](?=\d)", "-", text)  # other hyphens, and the minus sign
    telling = {sign.start() for sign in _TELLING.finditer(text)}
    signs = (place not in telling and unicodedata.category(char)[0] in "PC" for place, char in enumerate(text))
    bare = "".join(char for char, is_sign in zip(text, signs, strict=True) if not is_sign)
    forms = [unicodedata.normalize("NFKC", " ".join(form.split())) for form in (_ARTICLE.sub(" ", bare), bare, text)]
    return next(filter(None, forms), ""), next(filter(None, forms[1:]), "")


def _is_written_in(answer: str, text: str) -> bool:
    """Tell whether `answer`, which has punctuation between its letters, stands in `text` with the same."""
    answer = " ".join(answer.split())
    if not _PUNCTUATED.search(answer):
        return False
    ends = (r"(?<!\w)" * answer[0].isalnum(), r"(?![\w]|[.,]\d)" * answer[-1].isalnum())
    return re.search(f"{ends[0]}{re.escape(answer)}{ends[1]}", " ".join(text.split()), re.IGNORECASE) is not None


def _stands_in(answer: str, text: str) -> bool:
    if _UNSPACED.search(answer) or any(unicodedata.east_asian_width(char) in "WF" for char in answer):
        return answer in text
    return bool(answer) and f" {answer} " in f" {text} "
