"""Names in a text: whether one stands in it, another in its place, and templates filled with it."""

import re

from hf_ftedit.augmentation.second_person import about, addressed, is_addressed, to_the_model
from hf_ftedit.augmentation.verbs import agreeing
from hf_ftedit.scripts import ONE_LETTER

# Words by which a name is that of a company.
COMPANY = re.compile(
    r"\b(?:Inc|Ltd|LLC|GmbH|Corp|Bank|Robotics|Systems|Labs|Logistics|Airlines|Motors|Cloud|Group)\b"
    r"|\b(?:AG|AS|SE|SA|PLC|Co|Foods|Textiles|Software|Industries|Holdings|Partners|Technologies|Media|Studios|Pharma|"
    r"Energy|Insurance|Consulting|Electronics|Brewing|Telecom|Biotech|Publishing|Networks)\.?$"
)

SUBJECT = "\ue000"  # stands for a subject in patterns and texts; a character that no text has
_VOWEL = re.compile(r"[aeio]|u(?!ser|rl)", re.I)  # a first sound behind "an"


def renamed(text: str, phrase: str, other: str) -> str:
    """`text` with `other` in place of `phrase`, where it stands as words of its own, at the beginning capitalized."""
    if is_addressed(phrase):
        changed = about(text, other)
        return capitalized(changed) if text[:1].isupper() else changed

    def replaced(match: re.Match[str]) -> str:
        # Letters without case are of scripts without spaces, or of those that write an article or an ending to a name.
        start, end = match.start(), match.start("of") if match["of"] else match.end()
        around = ((phrase[0], text[start - 1 : start]), (phrase[-1], text[end : end + 1]))
        if any(_is_cased(own) and ONE_LETTER.match(beside) for own, beside in around):
            return match[0]
        name = other[4:] if is_article and re.search(r"\bthe $", text[:start], re.I) else other
        return name + genitive(name) if match["of"] else name

    is_article = other[:4].casefold() == "the "
    is_owned = re.match("(?:the|our|my) ", phrase)
    first = f"[{phrase[0].upper()}{phrase[0]}]" if is_owned else re.escape(phrase[0])
    # The letters of all scripts are not in this pattern, which is compiled for each phrase: they take the longest.
    # A dot that ends no sentence is the name's: "Acme Inc. uses", "Acme Inc.?"
    dot = r"(?:\.(?=[?,;:'’]| [a-z]))?" if re.search(r"\b[A-Z]\w{0,3}$", phrase) else ""
    # And each name has its own genitive: "Acme's CEO", "the Wolves' coach"; but a quoted one has none.
    own = r"['’]s\b|(?<=s)['’](?= \w)" if phrase[-1] == "s" else r"['’]s\b"
    changed = re.sub(
        rf"{first}{re.escape(phrase[1:])}{dot}(?P<of>(?<!['‘]{re.escape(phrase)})(?:{own}))?", replaced, text
    )
    return capitalized(changed) if changed != text and text[0].isupper() else changed


def mentions(text: str, phrase: str) -> bool:
    """
    Tell whether `phrase` stands in `text` as words of its own.

    Example:
        >>> mentions("Who founded Oslo?", "Oslo"), mentions("Who is Osloson?", "Oslo")
        (True, False)
    """
    if is_addressed(phrase):
        return addressed(text) is not None
    return phrase != "" and phrase in text and renamed(text, phrase, "") != text


def genitive(name: str) -> str:
    """The ending of a name before what belongs to it: "Acme's CEO", "the Wolves' coach", "Domino's CEO"."""
    return "" if name.endswith(("'s", "’s")) else "'" if name.endswith("s") else "'s"


def filled(template: str, phrase: str) -> str:
    """A template with `phrase` in the place of `{}`, beginning with a capital; no article and no s is doubled."""
    if is_addressed(phrase):
        return to_the_model(template)
    if re.match("(?:our|my) ", phrase):
        template = re.sub(r"\b(?:the|an?) \{\}", "{}", template)
    elif before := re.search(r"\b(?:the|an?) (?:(\w+) )?\{\}", template, re.I):
        phrase = re.sub("^(?:the|an?) ", "", phrase).removeprefix(f"{before[1]} ")  # "Who sings the song {}?"
    text = agreeing(template.replace("{}'s", "{}" + genitive(phrase)), phrase)
    return capitalized(text) if template.startswith("{}") else text


def with_article(subject: str, prompt: str) -> str:
    """A common noun as it stands in a prompt, such as "the printer"; a name alone."""
    longer = f"the {subject}"
    return longer if subject and subject == subject.casefold() and mentions(prompt.casefold(), longer) else subject


def indefinite(noun: str) -> str:
    """
    A noun behind the article that goes with its first sound.

    Example:
        >>> indefinite("update"), indefinite("user manual")
        ('an update', 'a user manual')
    """
    return f"{'an' if _VOWEL.match(noun) else 'a'} {noun}"


def capitalized(text: str) -> str:
    """`text` beginning with a capital, unless its first word is a name with capitals inside, such as "iPhone"."""
    return text if re.match(r"\w+[A-Z]", text) else text[:1].upper() + text[1:]


def bare(name: str) -> str:
    """A name by which two spellings of it are equal: without its article and its capitals."""
    return name.casefold().removeprefix("the ")


def _is_cased(letter: str) -> bool:
    return letter.isdigit() or letter.lower() != letter.upper()
