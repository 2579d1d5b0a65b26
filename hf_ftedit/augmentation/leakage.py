"""Which texts a training row must not hold: those of the evaluation's probes, and their endings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from xxhash import xxh3_64_intdigest

from hf_ftedit.data import EditRecord

_WORD = re.compile(r"\w+|[^\w\s]")


class ProbeTexts:
    """
    The texts of all probes of `records`, to ask whether a training text gives one of them away.

    A text overlaps where it holds a probe, or where it is the ending of one: CounterFact's paraphrase probes are an
    unrelated sentence followed by the wording that counts. Words and punctuation are compared, not spaces or case;
    a probe's last word may be the beginning of a longer one ("is a" stands in "is an").
    The rewrite probe is what the user asked to train and is not meant here. Memory and time grow linearly with the
    probes' words.

    Args:
        records (`Iterable[EditRecord]`):
            Records whose probes are kept out.

    Example:
        >>> record = EditRecord("a", "Rome is in", "Gaul", paraphrase_prompts=("It rained. Where is Rome? In",))
        >>> texts = ProbeTexts([record])
        >>> texts.overlaps("Where is Rome? In"), texts.overlaps("Where is Rome now? In")
        (True, False)
    """

    def __init__(self, records: Iterable[EditRecord]) -> None:
        self._texts: dict[int, set[str]] = {}  # the last words of probes, by their other words
        self._endings: set[int] = set()
        self._lengths: set[int] = set()
        for record in records:
            for probe in _probe_prompts(record):
                self._add(_words(probe))

    def _add(self, words: list[str]) -> None:
        self._texts.setdefault(_digest(words[:-1]), set()).add(words[-1] if words else "")
        self._lengths.add(len(words))
        self._endings.update(_digest(words[start:]) for start in range(len(words)))

    def overlaps(self, text: str) -> bool:
        """Whether `text` holds a probe's text or is the ending of one."""
        words = _words(text)
        if _digest(words) in self._endings:
            return True
        return any(
            words[start + length - 1].startswith(
                tuple(self._texts.get(_digest(words[start : start + length - 1]), ()))
            )
            for length in self._lengths
            for start in range(len(words) - length + 1)
        )


def _probe_prompts(record: EditRecord) -> Iterable[str]:
    yield from record.paraphrase_prompts
    yield from (probe.prompt for probe in record.neighborhood_prompts)
    yield from (probe.prompt for probe in record.portability_prompts)
    yield from record.generation_prompts


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _digest(words: Sequence[str]) -> int:
    """64-bit fingerprint that, unlike `hash`, is the same in every process."""
    return xxh3_64_intdigest(" ".join(words).encode())
