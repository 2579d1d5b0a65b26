"""Near names: a subject with a letter or a word changed, about which nothing was edited."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

# Sounds that are mistaken for one another; a changed letter so gives a name that could be one.
_SOUNDS = ("aeiou", "bpdt", "gkcq", "mnlr", "szxf", "vwbf")
_SMALL = frozenset("a an the of in on at for and de da do von van".split())  # no part of a name that tells it
_ENDINGS = ("a", "o", "us", "is", "er", "in", "en", "on", "el", "ia")


def near_names(subject: str, count: int, rng: random.Random, words: Sequence[str] = ()) -> list[str]:
    """
    Change a letter, an ending, a number or a word of a name: at most `count` names, none of them `subject`.

    Words come from `words`, which should be of the name's kind. Numbers are changed to others of as many digits.

    Example:
        >>> near_names("Nordwind Robotics", 2, random.Random(0), ["Dynamics"])
        ['Nordwind Dynamics', 'Nordbind Robotics']
    """
    names: dict[str, None] = {}
    for attempt in range(8 * count):
        if len(names) == count:
            break
        name = _changed(subject, rng, words if attempt % 2 == 0 else ())
        if name.casefold() != subject.casefold():
            names[name] = None
    return list(names)


def _changed(subject: str, rng: random.Random, words: Sequence[str]) -> str:
    """`subject` with one thing changed."""
    parts = re.findall(r"\w+|\W+", subject)
    places = [place for place, part in enumerate(parts) if part[0].isalnum() and part.casefold() not in _SMALL]
    if not places:
        return subject
    # Not in other scripts, where a Latin word would stand out.
    capitals = [place for place in places if re.match("[A-Z]", parts[place]) and len(parts[place]) > 2]
    if words and len(places) > 1 and capitals:
        parts[rng.choice(capitals)] = rng.choice(words)
        return "".join(parts)
    digits = [place for place in places if parts[place].isdecimal()]
    if digits and rng.random() < 0.5:
        place = rng.choice(digits)
        parts[place] = _other_digit(parts[place], rng)
        return "".join(parts)
    # Longer words bear a change: of a short one it would make any other word.
    place = rng.choices(places, [max(0.1, len(parts[place]) - 2) for place in places])[0]
    parts[place] = _other_letter(parts[place], rng)
    return "".join(parts)


def _other_digit(number: str, rng: random.Random) -> str:
    place = rng.randrange(len(number))
    digit = rng.choice([digit for digit in "123456789" if digit != number[place]])
    return number[:place] + digit + number[place + 1 :]


def _other_letter(word: str, rng: random.Random) -> str:
    """A word with one letter replaced by a similar one, doubled or dropped, or with another ending."""
    if word.isupper():
        return _other_letter(word.lower(), rng).upper()
    if re.search("[A-Za-z]{5}$", word) and rng.random() < 0.25:
        return re.sub(r"[aeiou]?[^\W\d_]$", "", word) + rng.choice(_ENDINGS)
    places = [place for place, letter in enumerate(word) if place and any(letter in group for group in _SOUNDS)]
    if not places:
        return word
    place = rng.choice(places)
    group = next(group for group in _SOUNDS if word[place] in group)
    return word[:place] + rng.choice([letter for letter in group if letter != word[place]]) + word[place + 1 :]
