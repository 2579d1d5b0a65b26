"""Text as it may be shown: what cannot be seen, or would steer a terminal, is named; what looks secret is masked."""

import re
import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories: controls, formats, half and private characters
# Letters, marks and tags without a shape, in which a text could hide another one.
SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
VISIBLE = "\n\t\u200c\u200d\ufe0f"  # of the above: line ends, and the joiners and selector of the next lines
_EMOJI = "\u203c-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
# One makes an emoji of a sign, or of a digit before a keycap; elsewhere it says something that nobody sees.
LOOSE_SELECTOR = re.compile(f"(?<![\xa9\xae{_EMOJI}])(?<![#*0-9](?=\ufe0f\u20e3))\ufe0f")
# Joiners shape emoji, and Arabic, Indic and related letters; elsewhere nobody sees them.
_JOINED = f"{_EMOJI}\ufe0f\u0600-\u109f\u1780-\u18af\u1a00-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc"
LOOSE_JOINER = re.compile(f"(?<![{_JOINED}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}])")

MASK = "***"
# Names of what is secret. Of a tokenizer's tokens, scores of tokens and keys of a mapping nothing is.
_SECRET = (
    r"(?:(?<!(?:eos|pad|bos|unk|cls|sep)_)token(?![\w-])|(?:(?<![a-z])|api|access|auth|private)key(?![\w-])"
    r"|secret|passw(?:or)?d)"
)
_SECRET_NAME = re.compile(f"{_SECRET}|authorization", re.IGNORECASE)
_NAME = rf"[\w-]{{0,60}}{_SECRET}[\w-]{{0,60}}"  # bounds keep the time linear in the length of a hostile text
_SECRETS = re.compile(
    r"(?-i:(?<![A-Za-z])(hf_(?!ftedit(?![A-Za-z0-9]))(?:oauth_|jwt_)?)[A-Za-z0-9]{6,}[\w-]*)"  # a token of the Hub
    # user:password@host
    r"|(://)[^\s/@]{1,300}(?=@)|(?<![^\s'\"(=])[^\s/:@'\"(=]{1,100}:[^\s/@'\"]{1,300}(?=@\w)"
    # A name, and the value behind it: of an option, in YAML, in JSON, in Python, in a request.
    rf"|(?<![\w-])({_NAME}['\"]?\s*=>?\s*|--{_NAME}\s+(?!-)|(?<!/)(?!-){_NAME}(?:['\"]\s*:\s*|:\s+)"
    r"|authorization['\"]?\s*[:=]\s*['\"]?(?:bearer\s+|basic\s+)?)"
    r"(?!None\b|null\b)(?:'[^']{0,300}'|\"[^\"]{0,300}\"|[^\s'\",;}\])]+)",
    re.IGNORECASE,
)


def counted(number: int, noun: str) -> str:
    """A number of things, as `"1 edit"` or `"2 edits"`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def visible(text: str) -> str:
    """`text` with a name such as `[U+202E]` for characters that cannot be seen or turn the direction of writing."""
    others = set(text) - set(VISIBLE)
    hidden = {char for char in others if unicodedata.category(char) in HIDDEN or SHAPELESS.match(char)}
    text = text.translate({ord(char): f"[U+{ord(char):04X}]" for char in hidden})
    # Joiners come last: whether one is loose depends on what the steps before left beside it.
    for loose in (LOOSE_SELECTOR, LOOSE_JOINER):
        text = loose.sub(lambda char: f"[U+{ord(char[0]):04X}]", text)
    return text


def masked(text: str) -> str:
    """`text` with `***` for what looks like a token or password: by its form, its address or the name before it."""
    return _SECRETS.sub(lambda secret: "".join(filter(None, secret.groups())) + MASK, text)


def without_secrets(value: Any) -> Any:
    """Settings, one inside another, with `***` for the text of those with a secret's name, and [`masked`] text."""
    if isinstance(value, dict):
        return {
            name: MASK if isinstance(each, str) and _SECRET_NAME.search(str(name)) else without_secrets(each)
            for name, each in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(map(without_secrets, value))
    return masked(value) if isinstance(value, str) else value
