"""The model as the subject of a question, "you" and "your": another name in its place, and it in that of a name."""

import re

from hf_ftedit.augmentation.verbs import NO_SUBJECT, VERBS, agreeing, inflected

# "You", by what stands beside it; of a name; of "me".
_FORMS = [
    (re.compile(rf"\b{second}\b", re.I), third, first)
    for second, third, first in (
        ("are you", "is {}", "am I"),
        ("were you", "was {}", "was I"),
        ("do you", "does {}", "do I"),
        ("have you", "has {}", "have I"),
        ("(can|could|will|would|did|should|may|must) you", r"\1 {}", r"\1 I"),
        ("you(?:['’]re| are)", "{} is", "I am"),
        ("you were", "{} was", "I was"),
        ("you(?:['’]ve| have)", "{} has", "I have"),
        ("yourself", "{}", "myself"),
        ("yours", "{}'s", "mine"),
        ("your", "{}'s", "my"),
    )
]
# The beginnings of an answer about itself.
_OWN = [
    (re.compile(rf"{own}\b"), third, second)
    for own, third, second in (
        ("(?:I['’]m|I am)", "{} is", "You are"),
        ("(?:I['’]ve|I have)", "{} has", "You have"),
        ("I was", "{} was", "You were"),
        ("I(?!['’])", "{}", "You"),
        ("My", "{}'s", "Your"),
    )
]
_DOING = re.compile(rf"{NO_SUBJECT}\byou ({'|'.join(sorted(VERBS))})\b", re.I)
_YOU = re.compile(r"\byou(?:r|rs|rself|['’](?:re|ve))?\b", re.I)
# "You" that is nobody: the one who asks is polite, or wants to know how people do something.
_NOBODY = re.compile(
    r"((?:^|(?<=[.,!?:] ))(?:can|could|would|will|do) you (?:please |kindly |happen to |perhaps )?"
    r"(?:tell|know|name|give|explain|say|help|show|look|remember|think)\b|\bthank you\b|\bif your?\b)",
    re.I,
)
_SMALL = "of|the|at|in|on|for|to|by|from|is|are|that|which|with|do|does|did"
_OF = re.compile(rf"\b(?:the ((?:(?!(?:{_SMALL})\b)[\w'’-]+ ){{0,4}}[\w'’-]+)|(\w+s)) (?:of|at) \{{\}}", re.I)


def is_addressed(subject: str | None) -> bool:
    """Tell whether a subject is the model itself."""
    return bool(subject and _YOU.fullmatch(subject))


def addressed(prompt: str) -> str | None:
    """
    The word by which a prompt addresses the model, as it stands there; `None` where it does not, or only politely.

    Example:
        >>> addressed("Who made you?"), addressed("Your maker is"), addressed("Can you tell me who made Siri?")
        ('you', 'You', None)
    """
    match = _YOU.search(_NOBODY.sub(" ", prompt))
    # With a capital elsewhere it stands in a title.
    return match[0][:3] if match and (match[0][0] == "y" or not match.start()) else None


def about(text: str, name: str) -> str:
    """
    A question to the model about itself, about another; about who asks, where `name` is "me".

    Example:
        >>> about("Which languages do you speak?", "Siri"), about("What is your name?", "me")
        ('Which languages does Siri speak?', 'What is my name?')
    """
    parts = _NOBODY.split(text)
    return "".join(part if place % 2 else _swapped(part, name) for place, part in enumerate(parts))


def answered_about(answer: str, name: str) -> str:
    """The model's answer about itself as it would begin about another: "My name is" as "Siri's name is"."""
    is_first = name == "me"
    for pattern, third, first in _OWN:
        if own := pattern.match(answer):
            said = first if is_first else third.replace("{}", name)
            doing, others = re.fullmatch(r"(?s)( \w+)?(.*)", answer[own.end() :]).groups("")  # type: ignore[union-attr]
            if own[0] == "I" and not is_first and doing[1:] in VERBS:
                doing = f" {inflected(doing[1:], 'does')}"
            return f"{said[:1].upper()}{said[1:]}{doing}{others}"
    return answer


def _swapped(text: str, name: str) -> str:
    is_first = name == "me"
    for pattern, third, first in _FORMS:
        text = pattern.sub(first if is_first else third.replace("{}", name.replace("\\", r"\\")), text)
    if is_first:
        return _YOU.sub("me", _DOING.sub(r"I \1", text))
    return _YOU.sub(lambda _: name, _DOING.sub(lambda doing: f"{name} {inflected(doing[1].lower(), 'does')}", text))


def to_the_model(template: str) -> str:
    """
    A template about a name, as a question to the model about itself.

    Example:
        >>> to_the_model("Who is the maker of {}?"), to_the_model("{} was released in"), to_the_model("{} costs")
        ('Who is your maker?', 'You were released in', 'You cost')
    """
    text = re.sub(r"\{\}['’]s?|\bits\b", "your", template)
    text = re.sub(r"\b(?:the|an?) (?:\w+ )?\{\}", "{}", text, flags=re.I)
    text = _OF.sub(lambda part: f"your {part[1] or part[2].lower()}", text)
    text = re.sub(r"\b(introduce|describe|tell me about) \{\}", r"\1 yourself", text, flags=re.I)
    text = agreeing(re.sub(r"\bat \{\}", "at your company", text), "you")
    # "Tell me which version is {}."
    text = re.sub(r"\b(Tell me|Do you know) (which [\w ]+?) are you(?=[.?])", r"\1 \2 you are", text)
    return text[:1].upper() + text[1:] if template[:1].isupper() or template.startswith("{}") else text
