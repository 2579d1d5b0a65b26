"""Near names: a subject with a letter or a word changed, about which nothing was edited."""

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import letters
from hf_ftedit.augmentation.names import COMPANY, indefinite
from hf_ftedit.augmentation.relations import known_names, same_kind, words_of
from hf_ftedit.augmentation.second_person import is_addressed
from hf_ftedit.augmentation.verbs import is_plural

# Sounds that are mistaken for one another; a changed letter so gives a name that could be one.
_SOUNDS = ("aeiou", "bpdt", "gkcq", "mnlr", "szxf", "vwbf")
_VOWELS, _CONSONANTS = "aeiou", "bcdfghklmnprstvwz"
_SMALL = frozenset("a an the of in on at for and de da do von van".split())  # no part of a name that tells it
_HALVED = re.compile("[A-Z][a-z]{4,}|[A-Z][a-z]{2,}[A-Z]{2,}")  # may be made of two parts: "Larkfield", "QuillDB"
_ENDINGS = ("a", "o", "us", "is", "er", "in", "en", "on", "el", "ia")


def near_names(subject: str, count: int, rng: random.Random, prompt: str = "") -> list[str]:
    """
    Change a letter, an ending, a number or a word of a name: at most `count` names, none of them `subject`.

    Words are of the name's kind. Numbers are changed to others of as many digits. In place of a common noun stand
    others, but for what `prompt` has as a name, and in that of the model itself, "you", others too: "What is my name?"

    Example:
        >>> near_names("Larkfield Library", 3, random.Random(1))
        ['Sword Library', 'Larkio Library', 'Larkbridge Library']
    """
    if is_addressed(subject):
        others: list[str] = bank("names.yaml")["others"]
        return rng.sample(others, min(len(others), count))
    # Half of a single word, which may be no thing: "the opposite of hot". Of others a misspelling is the same thing.
    is_thing = " " in subject or is_plural(subject)
    is_name = is_small_name(subject, prompt)
    names = dict.fromkeys([] if is_name else _things(subject, count if is_thing else count // 2, rng))
    if names and is_thing:
        return list(names)
    words = words_like(subject)
    for attempt in range(8 * count):
        if len(names) == count:
            break
        name = _changed(subject, rng, words if attempt % 3 == 0 else ())
        if name.casefold() != subject.casefold() and words_of(name).isdisjoint(bank("names.yaml")["rude"]):
            names[name] = None
    return list(names)


def words_like(subject: str) -> list[str]:
    """Words to put in place of one of a name's words, by what the name seems to be."""
    names = bank("names.yaml")
    words: dict[str, list[str]] = names["words"]
    parts = subject.split()
    if COMPANY.search(subject):
        return [*words["company"], *words["last_names"]]
    if not {*parts} & {*names["kinds"]} and len(parts) in (2, 3) and all(part[:1].isupper() for part in parts):
        if parts[0] in words["first_names"]:
            return [*words["first_names"], *words["last_names"]]
        if parts[0] not in ("The", "A"):  # a person, or any other thing
            return [*words["first_names"], *words["last_names"], *words["place"], *words["works"]]
    return [*words["place"], *words["works"]]


@lru_cache
def _nouns() -> frozenset[str]:
    """Common nouns that stand without an article too."""
    names, synonyms = bank("names.yaml"), chain.from_iterable(bank("synonyms.yaml")["words"])
    return frozenset(text.split()[-1] for text in (*names["things"], *names["many"], *synonyms))


def is_small_name(subject: str, prompt: str) -> bool:
    """Tell a name that is typed small, as in "who runs acme", from a common noun, by the words beside it."""
    own = re.escape(re.sub("^(?:the|our|my|an?) ", "", subject))
    has_article = re.search(rf"\b(?:the|our|my|your|an?) (?:\w+ )?{own}", prompt, re.I)
    if not subject.islower() or subject not in prompt or has_article:
        return False
    is_one = re.search(rf"\b(?:is|was|does|has) {own}\b|\b{own} (?:is|was|has)\b", prompt, re.I)
    is_noun = subject.split()[-1] in _nouns() or (is_plural(subject) and not is_one)
    return not is_noun or bool(COMPANY.search(subject.title()))


def _things(subject: str, count: int, rng: random.Random) -> list[str]:
    """Other things than a common noun's, with its "the" or "my": a letter changed gives no other word."""
    noun = re.fullmatch("(?:(the|our|my|an?) )?[a-z][a-z -]*[a-z]", subject)
    things: list[str] = bank("names.yaml")["many" if is_plural(subject) else "things"] if noun else []
    drawn = rng.sample(things, min(len(things), count))
    owner = (noun and noun[1]) or ""
    others = [thing for thing in drawn if thing not in subject]
    return [indefinite(thing) if owner in ("a", "an") else f"{owner} {thing}".lstrip() for thing in others]


def of_a_kind(subject: str, count: int, rng: random.Random, kinds: Sequence[str] = ()) -> list[str]:
    """
    Names of other things of a name's kind, where the bank, a word or a number of the name or else `kinds` tells it.

    Example:
        >>> of_a_kind("Fenmoor Public Library", 2, random.Random(0))
        ['Kovács Public Library', 'Garden Public Library']
    """
    words, known = subject.split(), bank("names.yaml")
    names = same_kind(subject)
    first = next((place for place, word in enumerate(words) if word in known["kinds"]), None)
    if not names and first is not None:
        others = [*known["words"]["last_names"], *known["words"]["place"]]
        others = rng.sample(others, min(len(others), count))
        names = [" ".join([*words[:1], other] if first == 0 else [other, *words[first:]]) for other in others]
        names += [name for name in known_names() if name.endswith(f" {words[-1]}")]
    elif not names:
        # A product and its number, or a work and its article.
        kinds = ["product"] if re.search(r"\d", subject) else ["work"] if words[:1] == ["The"] else kinds
        names = same_kind(next((known["like"][kind] for kind in kinds if kind in known["like"]), ""))
    names = [name for name in names if name != subject]
    return rng.sample(names, min(len(names), count))


def invented_names(subject: str, count: int, rng: random.Random) -> list[str]:
    """
    Make names up that look like `subject`: other letters and digits of the same sorts, but in small words.

    Other scripts than the Latin one have none.

    Example:
        >>> invented_names("Nordwind Robotics 3", 1, random.Random(0))
        ['Tucnzupz Sehigang 5']
    """

    def other(match: re.Match[str]) -> str:
        word = match[0]
        return word if word in _SMALL else "".join(_other(letter, rng) for letter in word)

    names = dict.fromkeys(re.sub(r"\w+", other, subject) for _ in range(4 * count))
    return [name for name in names if name != subject][:count]


def _other(letter: str, rng: random.Random) -> str:
    """Another letter of the same sort: a vowel, a consonant or a digit, in the same case."""
    group = next((group for group in (_VOWELS, _CONSONANTS, "0123456789") if letter.lower() in group), letter)
    drawn = rng.choice([one for one in group if one != letter.lower()] or group)
    return drawn.upper() if letter.isupper() else drawn


def _changed(subject: str, rng: random.Random, words: Sequence[str]) -> str:
    """`subject` with one thing changed."""
    parts = re.findall(r"\w+|\W+", subject)
    places = [place for place, part in enumerate(parts) if part[0].isalnum() and part.casefold() not in _SMALL]
    if not places:
        return subject
    # Another hotel is a hotel.
    places = [place for place in places if parts[place] not in bank("names.yaml")["kinds"]] or places
    # Not in other scripts, where a Latin word would stand out.
    capitals = [place for place in places if re.match("[A-Z]", parts[place]) and len(parts[place]) > 2]
    halved = [place for place in capitals if _HALVED.fullmatch(parts[place]) and not COMPANY.search(parts[place])]
    # A code that stands alone, "E4031", has little else to change.
    is_code = len(places) == 1 and re.search(r"\d", subject)
    digits = [place for place in places if re.search(r"[0-9]", parts[place]) and (len(parts) > 1 or is_code)]
    # Another word in place of the one that tells a name is seen at a glance.
    if words and capitals and (len(capitals) > 1 or rng.random() < 0.3) and len(parts) > 1:
        parts[rng.choice(capitals)] = rng.choice(words)
    elif digits and rng.random() < 0.6:
        number = parts[place := rng.choice(digits)]
        changed = rng.choice([place for place, letter in enumerate(number) if letter.isdecimal()])
        digit = rng.choice([digit for digit in "123456789" if digit != number[changed]])
        parts[place] = number[:changed] + digit + number[changed + 1 :]
    elif halved and rng.random() < 0.5:
        place = rng.choice(halved)
        parts[place] = _other_end(parts[place], rng)
    else:
        # Longer words bear a change: of a short one it would make any other word.
        place = rng.choices(places, [max(0.1, len(parts[place]) - 2) for place in places])[0]
        parts[place] = _other_letter(parts[place], rng)
    return "".join(parts)


def _other_end(word: str, rng: random.Random) -> str:
    """A name with another second half, as "Larkstone" for "Larkfield"."""
    names = bank("names.yaml")
    if code := re.match("([A-Z][a-z]+)[A-Z]", word):
        return code[1] + rng.choice([code for code in names["codes"] if not word.endswith(code)])
    endings: list[str] = names["endings"]
    first = next((word.removesuffix(end) for end in endings if word.endswith(end)), word[: len(word) // 2 + 1])
    return first + rng.choice([end for end in endings if first + end != word])


def _other_sign(word: str, rng: random.Random) -> str:
    """A word of another script than the Latin one with one of its letters changed to another of its sort."""
    places = [(place, group) for place, letter in enumerate(word) for group in letters() if letter in group]
    if not places:
        return word
    place, group = rng.choice(places)
    return word[:place] + rng.choice(group.replace(word[place], "")) + word[place + 1 :]


def _other_letter(word: str, rng: random.Random) -> str:
    """A word with a letter or two changed, dropped or put in, or with another ending."""
    if word.isupper() and word != word.lower():  # "ℝ" has no small letter
        return _other_letter(word.lower(), rng).upper()
    if re.search("[A-Za-z]{5}$", word) and rng.random() < 0.2:
        return re.sub(r"[aeiou]?[^\W\d_]$", "", word) + rng.choice(_ENDINGS)
    # Not the first letter, by which a reader knows names at a glance.
    places = [place for place, letter in enumerate(word) if place and letter in _VOWELS + _CONSONANTS]
    if not places and re.fullmatch("[a-z][^aeiou]?", word, re.I):
        places = [0]  # "H&M" has no other
    if not places:
        return _other_sign(word, rng)
    for place in rng.sample(places, min(len(places), 2 if len(word) > 5 and rng.random() < 0.3 else 1)):
        letters = next((group for group in _SOUNDS if word[place] in group), _CONSONANTS)
        if rng.random() < 0.4:
            letters = _VOWELS if word[place] in _VOWELS else _CONSONANTS
        other = rng.choice([letter for letter in letters if letter != word[place]])
        word = word[:place] + other + word[place + 1 :]
    # Last, as it moves the places behind it.
    if len(word) > 4 and rng.random() < 0.3:
        place = rng.choice(places)
        word = word[:place] + rng.choice(("", word[place] * 2)) + word[place + 1 :]
    return word
