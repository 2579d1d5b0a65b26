"""Test-set leakage: training texts that hold a probe of the evaluation, or are the ending of one."""

import unicodedata
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from hf_ftedit.data import WORD, EditRecord


class ProbeTexts:
    """
    The texts of all probes of `records`, to find training texts that hold one of them or are the ending of one.

    Of edits `held_out`, which are measured only, the prompt is a probe like its paraphrases.

    Example:
        >>> record = EditRecord("a", "Rome is in", "Gaul", paraphrase_prompts=("It rained. Where is Rome? In",))
        >>> texts = ProbeTexts([record])
        >>> texts.overlaps("Where is Rome? In"), texts.overlaps("Where is Rome now? In")
        (True, False)
    """

    def __init__(self, records: Sequence[EditRecord], held_out: Sequence[EditRecord] = ()) -> None:
        self._texts: dict[int, set[str]] = {}  # the last words of probes, by their other words
        self._endings: set[int] = set()
        self._lengths: set[int] = set()
        trained = {record.prompt for record in records}
        for record in (*records, *held_out):
            others = [probe.prompt for probe in record.neighborhood_prompts]
            others += [probe.prompt for probe in record.portability_prompts]
            # Without a trained edit's own prompt: that it is trained is what the user wants.
            others += {record.prompt} - trained
            for probe in (*record.paraphrase_prompts, *record.near_name_prompts, *record.generation_prompts, *others):
                words = _words(probe)
                if words == _words(record.subject or ""):  # it stands in all that is trained
                    continue
                self._texts.setdefault(_digest(words[:-1]), set()).add(words[-1] if words else "")
                self._lengths.add(len(words))
                self._endings.update(_digest(words[start:]) for start in range(len(words)))

    def overlaps(self, text: str) -> bool:
        """Does `text` hold a probe's text, or is it the ending of one?"""
        words = _words(text)
        # CounterFact's paraphrase probes are an unrelated sentence followed by the wording that counts: a row with
        # that wording alone gives the probe away.
        if _digest(words) in self._endings:
            return True
        # A probe's last word may be the beginning of a longer one: "is a" stands in "is an".
        # Runs of words are looked up by hash: a search for each probe in each row would grow with their product.
        runs = ((start, start + length - 1) for length in self._lengths for start in range(len(words) - length + 1))
        return any(words[end].startswith(tuple(self._texts.get(_digest(words[start:end]), ()))) for start, end in runs)


def _words(text: str) -> list[str]:
    # Spaces, case, and two ways to write one letter do not make another text.
    return WORD.findall(unicodedata.normalize("NFC", text).casefold())


def _digest(words: Sequence[str]) -> int:
    """64-bit hash of the words."""
    # Not Python's `hash`: it differs between processes, and rows are drawn in several.
    return xxh3_64_intdigest(" ".join(words).encode())
