"""Other languages than English: which one a prompt is in, its subject, and what is written around and about it."""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from hf_ftedit.augmentation.banks import bank

_WORD = re.compile(r"[^\W\d_]+")
_END = re.compile(r"[?!.…？！。\s]+$")
_ASKED = re.compile(r"[?？]\s*$")
_ENGLISH = frozenset(
    "who whom whose what which where when how why is are was were do does did has have can will the a an of in at by "
    "to for on from with and it its s tell name".split()
)
# A French verb that changes places with its pronoun would have to change again; more than a question is no clause.
_NO_CLAUSE = re.compile(r"-(?:je|tu|ils?|elles?|on|ce|nous|vous)\b|^[Qq]ue |[,，。]| door |\w{3}[.?!] |[吗呢请你您我]")
# Parts of a language that are sets of words.
_WORDS = ("words", "asks", "interrogatives", "before", "verbs", "articles", "works", "elided")
# Between words of a name; those of `_OF` behind "the" too, as in "la Torre di Pisa", but not in "el CEO de Acme".
_OF = frozenset("de da do dos di del della du & имени".split())
_PARTICLES = _OF | frozenset("la le lo los las les den der ter von van".split())
_ROLE = re.compile(r"[^\W\d_a-zß-ÿ]+$|Pr[eé]sident|Dire[ct]|G[eé]r[ae]nt|Minist|Jef[ea]|Chef|Alcald|Prefeit|Sindac")


@dataclass(frozen=True)
class Language:
    """What `languages.yaml` has of a language, which says what each part is."""

    words: frozenset[str]
    asks: frozenset[str]
    interrogatives: frozenset[str]
    before: frozenset[str]
    verbs: frozenset[str]
    articles: frozenset[str]
    works: frozenset[str]
    elided: frozenset[str]
    script: str
    wrappers: dict[str, tuple[str, ...]]
    indirect: tuple[str, ...]
    about: tuple[str, ...]
    alike: tuple[str, ...]
    following: tuple[str, ...]
    questions: tuple[str, ...]
    same: tuple[tuple[str, ...], ...]
    subjects: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()

    def subject_of(self, prompt: str) -> str | None:
        """The name that a prompt is about: by the patterns of a script without capitals, else by capitals."""
        if self.subjects:
            return next((match[1] for pattern in self.subjects if (match := re.search(pattern, prompt))), None)
        title = rf"\b(?:{'|'.join(self.works)})(?: [^\W\dA-ZА-Я]+)*? ([^\W\d_a-zß-ÿа-я][^?!]*(?<=\S))"
        if match := re.search(title, _END.sub("", prompt)):
            return match[1]
        names = _names(prompt, self.words, self.articles)
        # A question ends with what it is about, and an opening begins with it.
        return names[-1 if _END.search(prompt) else 0] if names else None

    def wordings(self, prompt: str, subject: str) -> list[str]:
        """Other wordings of a prompt: those of its group, its name first, and its words as people search for them."""
        if not subject or subject not in prompt:
            return []
        masked = re.sub(r"\bd['’]\{\}", "de {}", _plain(prompt.replace(subject, "{}")))
        forms = [group for group in self.same if masked in map(_plain, group)]
        texts = [self._of(text, subject) for group in forms[:1] for text in group if _plain(text) != masked]
        first, *others = masked.lstrip("¿").split()
        texts += [text for text in self._indirect(prompt) if subject in text]
        if first in self.words and _END.search(prompt):
            texts.append(f"{subject}: {prompt}")
            small = self.words | self.articles
            typed = [word for word in others if not small >= {*_WORD.findall(word)}]
            # Of "In which year was it founded?" the first word tells nothing alone, nor "costs" of "What costs it?".
            is_noun = len(typed) == 1 and typed[0] != others[0] and self.interrogatives.isdisjoint(others)
            if typed and (first in self.asks or is_noun):
                texts.append(" ".join([subject, *typed, *{first} & self.asks]) + "?")
        return texts

    def _indirect(self, prompt: str) -> list[str]:
        """The question as a clause of others, as in "Do you know who leads it?"; none where it is no question."""
        clause = _END.sub("", prompt).lstrip("¿")
        is_one = self.script or clause.split()[0].lower() in self.interrogatives | self.before
        if not is_one or not _ASKED.search(prompt) or _NO_CLAUSE.search(clause):
            return []
        clause = clause[:1].lower() + clause[1:]
        if self.verbs:
            moved = re.fullmatch(rf"(.+?) ({'|'.join(sorted(self.verbs))}) (.+)", clause)
            if not moved:
                return []
            clause = f"{moved[1]} {moved[3]} {moved[2]}"
        return [text.replace("{}", clause) for text in self.indirect]

    def questions_about(self, prompt: str, subject: str) -> list[str]:
        """Other questions about the subject of a prompt: none that begins as it or may ask the same by its words."""
        bare = prompt.replace(subject, " ").lower()
        first, *others = _WORD.findall(bare) or ["_"]
        own = [rf"\b{word}\b" for word in {first, *others} - self.words | {first}]
        own += [line for line in self.alike if re.search(line, bare)]
        return [self._of(text, subject) for text in self.about if not re.search("|".join(own), text.lower())]

    def _of(self, text: str, subject: str) -> str:
        """A line of the bank about a subject, in French with "d'" before a vowel."""
        if self.elided and re.match("[aeiouàâéèêëîïôùûœ]", subject, re.I):
            text = re.sub(rf"\b({'|'.join(self.elided)}) \{{\}}", lambda match: match[1][:-1] + "'{}", text)
        return text.replace("{}", subject)


@lru_cache(maxsize=4096)
def language_of(text: str) -> Language | None:
    """
    The language of a text, by its script or the small words in it; `None` for English and what the bank does not know.

    Example:
        >>> language_of("Who directed La casa de papel?"), language_of("¿Quién dirigió la película Roma?") is None
        (None, False)
    """
    known = _languages()
    text = text.lstrip("¿¡ ")
    # Capitals are of names, but for the first word's.
    first, *others = _WORD.findall(text[:1].lower() + text[1:]) or [""]
    english = _ENGLISH.intersection(others)
    by_script = (one for one in known if one.script and re.search(one.script, text))
    if one := next(by_script, None):
        return None if english or first in _ENGLISH else one
    one = max(known, key=lambda one: len((one.words | one.verbs).intersection([first, *others])))
    if first in one.interrogatives - _ENGLISH and english <= one.words and _ASKED.search(text):
        return one
    # Words that are English too, such as "was" and "in", tell nothing, but for the first one.
    count = (first in one.words) + len((one.words | one.verbs).intersection(others) - english)
    return one if first not in _ENGLISH - one.words and count >= max(2, len(english) + 1) else None


def letters() -> tuple[str, ...]:
    """Letters of other scripts than the Latin one that may stand in each other's place in a name, by their sorts."""
    return tuple(chain.from_iterable(language.letters for language in _languages()))


@lru_cache(maxsize=1)
def _languages() -> tuple[Language, ...]:
    def read(same: str, script: str = "", **texts: str) -> Language:
        sets: dict[str, Any] = {name: frozenset(texts.pop(name, "").split()) for name in _WORDS}
        lines: dict[str, Any] = {name: tuple(text.splitlines()) for name, text in texts.items()}
        wrappers = {"questions": lines.pop("wrappers"), "statements": lines.pop("openings")}
        groups = tuple(tuple(group.splitlines()) for group in same.split("\n\n"))
        return Language(script=script, same=groups, wrappers=wrappers, **sets, **lines)

    return tuple(read(**parts) for parts in bank("languages.yaml").values())


def _plain(text: str) -> str:
    """A wording in small letters, without the marks that end it."""
    return _END.sub("", text).lower()


def _names(prompt: str, words: frozenset[str], articles: frozenset[str]) -> list[str]:
    """Words with capitals or digits, one after another: those behind no article, else of several words, else all."""
    names: list[list[str]] = []
    bare: list[int] = []  # places of names without an article
    before, between, is_open, begins, is_asked = "", list[str](), False, True, _ASKED.search(prompt)
    for token in prompt.split():
        # Without "l'" and "d'", with which a name begins anew.
        elided = r"(?:\w{1,4}['’](?=\w))?" if begins else r"(?:[a-zà-ÿ]{1,4}['’](?=\w))?"
        word = re.sub(rf"^\W*{elided}|\W+$", "", token) or token
        word += "." if re.search(r"\b[^\W\d]{1,2}\.$", token) else ""
        is_title = bool(names) and not _ROLE.match(names[-1][0])
        is_small = word == word.lower() or (begins and word.lower() in words)
        if is_open and word.isdigit() or not is_small:
            if is_open and token.lstrip('«"“„(').startswith(word):
                names[-1] += [*between, word]
            elif is_open and is_title and re.match("l['’]" if between else "d['’]", token):
                names[-1] += [*between, re.sub(r"\W+$", "", token)]
            else:
                # Of "Tengo una HP 4200" the first word is no name.
                bare += [len(names)] if before not in articles and not (begins and is_asked) else []
                names.append([word])
            is_open, between = True, []
        elif is_open and (word in _OF and is_title or word in _PARTICLES and (between or len(names) - 1 in bare)):
            between.append(word)
        else:
            is_open = False
        begins = bool(re.search(r"[:?!]$|(?:\w{3}|\d)\.$", token))  # but "Dr. Meier" goes on
        is_open = is_open and not begins and not re.search(r"[,;]$", token)
        before = word.lower()
    # Of "the Sonnenhof clinic" and "the number" the longer one is a name.
    longer = [place for place, parts in enumerate(names) if len(parts) > 1]
    return [" ".join(names[place]).rstrip(".") for place in bare or longer or range(len(names))]
