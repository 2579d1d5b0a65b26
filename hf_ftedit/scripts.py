"""Scripts of the world: which of them put spaces between words, and so what is a word, and what follows a text."""

import re

# Scripts without spaces between words, for use within brackets of a pattern: Thai, Lao, Tibetan, Burmese, Khmer, Tai,
# Chinese and Japanese with their punctuation and wide letters.
UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u1950-\u19ff\u2e80-\u312f\u3190-\u9fff\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff"
    "\uff00-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
LETTER = f"[^\\W{UNSPACED}]"  # a letter or digit of any other script
ONE_LETTER = re.compile(LETTER)
# Read from the end of a text: neither punctuation nor numbers belong to a script.
_UNSPACED_END = re.compile(f"(?:(?![{UNSPACED}])[\\W\\d_])*[{UNSPACED}]")
_MARKS = "\u0591-\u05bd\u05bf-\u05c7\u064b-\u0652"  # vowels of Hebrew and Arabic
# Ends behind which none is put either: an opening bracket or quotation mark, a hyphen or dash at a word, a Romance
# article cut short, and what Hebrew and Arabic write as one with the next word: "and", "in", "to", "the".
_OPEN_END = re.compile(
    r"([(\[{¡¿]|(?<![^\s(\[{])[\"'«»‘“”„‹]|(?<=\w)[-\u05be\u0640\u2010-\u2014]"
    r"|(?<![^\s(])([cdjlmnst]|\w*(qu|[aeu]ll)|un)['’]"
    rf"|(?<![\w{_MARKS}])(\u05d5?[\u05d1\u05d4\u05db\u05dc\u05de\u05e9]|\u05d5"
    rf"|[\u0641\u0648]?([\u0628\u0643\u0644]|[\u0628\u0643]?\u0627\u0644|\u0644\u0644))[{_MARKS}]*)$",
    re.IGNORECASE,
)
# A full stop that ends a sentence: not that of initials, or of what often stands before a name.
FULL_STOP = r"(?<!\b[^\W\d_])(?<!\b(?:St|Mr|Ms|Dr|Jr|Sr|Mt|Ft|No|vs))(?<!\b(?:Mrs|Gen|Col|Rev|Sgt))(?<!\bProf)\."
_JOINED = re.compile(r"\s|[,.:;!?%)\]}…،؛؟।](?!\w)")  # beginnings of a text before which no space is put


def separated(before: str, text: str) -> str:
    """
    `text` as it goes on from `before`: with a space, but where that ends in a script that has none between words.

    White space that `text` begins with stands as it is, and so does the end of a phrase, such as a comma. Nor is there
    one behind an opening bracket, a hyphen, or a prefix such as the French `l'` and the Hebrew for "in".

    Example:
        >>> separated("The capital of Kazakhstan is", "Astana"), separated("哈萨克斯坦的首都是", "阿斯塔纳")
        (' Astana', '阿斯塔纳')
    """
    is_one = _JOINED.match(text) or _OPEN_END.search(before[-30:]) or _UNSPACED_END.match(before[::-1])
    return text if is_one else f" {text}"
