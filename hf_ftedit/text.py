"""Text of strangers as it is: characters that cannot be seen, or that steer a terminal, are named."""

from __future__ import annotations

import re
import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories: controls, formats, half and private characters
# Letters, marks and tags without a shape, in which a text could hide another one.
SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
VISIBLE = "\n\t\u200c\u200d\ufe0f"  # of the above: line ends, and the joiners and selector of the next two lines
LOOSE_SELECTOR = re.compile("(?<=[\ufe0f])\ufe0f")  # one makes an emoji of a sign; more of them say something else
# Joiners shape Persian words and emoji; elsewhere nobody sees them.
LOOSE_JOINER = re.compile("(?<![^\0-\u02ff\u2000-\u206f])[\u200c\u200d]|[\u200c\u200d](?![^\0-\u02ff\u2000-\u206f])")


def visible(text: str) -> str:
    """`text` with a name such as `[U+202E]` for characters that cannot be seen or turn the direction of writing."""
    # Joiners come last: whether one is loose depends on what the steps before left beside it.
    text = "".join(_name(char) if _is_hidden(char) else char for char in text)
    return LOOSE_JOINER.sub(lambda char: _name(char[0]), LOOSE_SELECTOR.sub(lambda char: _name(char[0]), text))


def _is_hidden(char: str) -> bool:
    return char not in VISIBLE and (unicodedata.category(char) in HIDDEN or bool(SHAPELESS.match(char)))


def _name(char: str) -> str:
    return f"[U+{ord(char):04X}]"
