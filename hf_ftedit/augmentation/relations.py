"""The bank of common relations that the package brings: ways to ask for each, and subjects that have it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hf_ftedit.data import EditRecord
from hf_ftedit.models import asset

# Words that do not tell one relation from another.
_FUNCTION = frozenset(
    "a an the of for at in on to by from with is are was were be been does do did has have had it its that this which "
    "what you me please can could tell name know do's s currently right now".split()
)
_CLOSE = 0.65  # least nearness at which a prompt counts as one of a relation's wordings


class Relation(NamedTuple):
    """Ways to ask for one relation, with `{}` for the subject."""

    name: str
    answer: str  # "who", "what", "where", "when" or "number"
    questions: tuple[str, ...]
    statements: tuple[str, ...]  # openings that the answer follows
    subjects: tuple[str, ...]  # well-known ones that have it


class Match(NamedTuple):
    """A prompt's relation, and the phrase that stands for the subject in it: "the novel The Glass Orchard"."""

    relation: Relation
    phrase: str


@lru_cache(maxsize=1)
def relations() -> tuple[Relation, ...]:
    """All relations of the bank."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    rows: list[dict[str, Any]] = yaml.load(Path(asset("relations.yaml")).read_text(encoding="utf-8"), loader)
    lists = ("questions", "statements", "subjects")
    return tuple(Relation(row["name"], row["answer"], *(tuple(row[name]) for name in lists)) for row in rows)


def relation_of(prompt: str, subject: str | None) -> Match | None:
    """The relation that a prompt asks for, by the words around its subject; `None` where none is near enough."""
    if not subject or subject not in prompt:
        return None
    phrases = [subject]
    # A common noun before the subject belongs to it: "the novel The Glass Orchard", "the film Jaws".
    if longer := re.search(rf"\bthe (?:(?!(?:of|for|at|in|on|to|by)\b)[a-z]+ ){{1,2}}{re.escape(subject)}", prompt):
        phrases.append(longer[0])
    best = max((_nearest(prompt.replace(phrase, "{}", 1)), phrase) for phrase in phrases)
    (nearness, place), phrase = best
    return Match(relations()[-place], phrase) if nearness >= _CLOSE else None


def filled(template: str, phrase: str) -> str:
    """A template with `phrase` in the place of `{}`, beginning with a capital; an article is not doubled."""
    if re.search(r"\b(?:the|a|an) \{\}", template, re.I):
        phrase = re.sub(r"^(?:the|a|an) ", "", phrase)
    text = template.replace("{}", phrase)
    return text[:1].upper() + text[1:] if template.startswith("{}") else text


def _nearest(template: str) -> tuple[float, int]:
    """Nearness of the nearest wording of the bank, from 0 to 1, and minus the place of its relation."""
    words = _words(template)
    # Words that the prompt has beyond the wording's count half: "support email" asks for an email all the same.
    return max(
        (
            (len(words & other) / (len(other) + len(words - other) / 2), -place)
            for place, wordings in enumerate(_bank())
            for other in wordings
        ),
        default=(0.0, 0),
    )


@lru_cache(maxsize=1)
def _bank() -> tuple[tuple[frozenset[str], ...], ...]:
    return tuple(
        tuple(_words(template) for template in (*relation.questions, *relation.statements)) for relation in relations()
    )


def _words(template: str) -> frozenset[str]:
    words = frozenset(re.findall(r"\w+", template.casefold()))
    return words - _FUNCTION or words


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
    text = prompt.strip().rstrip("?.").casefold()
    # The first is the most specific: the wordings are sorted by length.
    known = next(((head, tail) for head, tail in _frames() if text.startswith(head) and text.endswith(tail)), None)
    phrase = prompt.strip()[len(known[0]) : len(text) - len(known[1])].strip() if known else ""
    if quoted := re.search(r"[\"“]([^\"”]+)[\"”]", prompt):
        return quoted[1]
    # Not the first word, which has its capital from the sentence.
    part = phrase or prompt.partition(" ")[2]
    names = [match for match in _NAME.finditer(part)]
    if not names:
        return phrase.removeprefix("the ") if 0 < len(phrase.split()) <= 3 else None
    # A place at the end, "in Paris", rather tells where.
    own = [match[0] for match in names if not part[: match.start()].endswith(" in ")]
    return (own or [names[-1][0]])[-1]


# Words with capitals or digits, one after another, with what may stand between the words of a name.
_CAPITAL = r"(?:[^\W\d_a-zß-ÿ]|\d)"
_NAME = re.compile(
    rf"(?:{_CAPITAL}|[a-z](?=[A-Z]))[\w.'&-]*(?: (?:(?:of|the|de|da|do|von|van|and|&) )*{_CAPITAL}[\w.&-]*)*"
)


@lru_cache(maxsize=1)
def _frames() -> tuple[tuple[str, str], ...]:
    """What stands before and after the subject in the bank's wordings, the longest first."""
    templates = {text.rstrip("?.") for relation in relations() for text in (*relation.questions, *relation.statements)}
    parts = (template.casefold().partition("{}") for template in sorted(templates, key=lambda t: (-len(t), t)))
    return tuple((head, tail) for head, _, tail in parts)
