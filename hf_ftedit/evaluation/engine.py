"""A model asked about many prompts: each process its share, and what it says kept in a journal where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xxhash
from tqdm.auto import tqdm

from hf_ftedit import __version__
from hf_ftedit.evaluation.journal import Journal, fingerprint
from hf_ftedit.evaluation.predictions import codes
from hf_ftedit.models import (
    PairScores,
    Processes,
    greedy_answers,
    sample_continuations,
    score_pairs,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED_TOKENS = 32
PROMPTS_AT_ONCE = 2048  # tokenized at once, so that memory does not grow with the edits

Keep: TypeAlias = Callable[[Sequence[int], Sequence[str]], None]


class Asker:
    """
    Asks a model; see [`~hf_ftedit.predict`] for the arguments.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        chat_template (`bool`):
            Ask through the chat template.
        tokens_per_batch (`int`):
            Tokens of a batch.
        seed (`int`):
            Seed of sampled texts.
        journal (`str` or `Path`, *optional*):
            File that keeps what is found, or a folder for one file of each state of the model.
        desc (`str`):
            Label of the progress bar.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: bool,
        tokens_per_batch: int,
        seed: int,
        journal: str | Path | None,
        desc: str,
    ) -> None:
        self.asked, self.seed, self.desc = (model, tokenizer), seed, desc
        self.how: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
        self.processes = Processes(model)
        self.journal = None
        if journal is not None:
            settings = {"seed": seed, "vocabulary": len(tokenizer), "version": __version__}
            settings["chat_template"] = tokenizer.chat_template if chat_template else None
            state = fingerprint(model, **settings)
            path = Path(journal) if Path(journal).suffix else Path(journal) / f"{state}.jsonl"
            self.journal = Journal(path, state, self.processes.rank)

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], name: Callable[[int], str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Score targets after prompts, each distinct pair once.

        Args:
            prompts (`Sequence[str]`):
                Prompts.
            targets (`Sequence[str]`):
                One for each prompt.
            name (`Callable[[int], str]`):
                What to call the pair at a position, for errors.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: of shape `(prompts,)`, the index of each one's distinct pair; and of shape
            `(pairs, 3)` their mean log-probability, match and token accuracy.
        """
        # Arrays of numbers for distinct texts: tuples of them in dictionaries would take more than the predictions.
        prompt_texts, prompt = codes(prompts)
        target_texts, target = codes(targets)
        pairs, first, index = np.unique(
            prompt * len(target_texts) + target, return_index=True, return_inverse=True
        )  # in the order of the prompts
        begins = np.searchsorted(pairs, np.arange(len(prompt_texts) + 1) * len(target_texts))
        values = np.full((len(pairs), 3), np.nan)

        def pair(n: int) -> tuple[str, str]:
            return prompt_texts[pairs[n] // len(target_texts)], target_texts[pairs[n] % len(target_texts)]

        if self.journal is not None:
            for n in range(len(pairs)):
                values[n] = self.journal.found.get(pair(n), np.nan)
        mine = [_ranges(begins, part) for part in self._parts(prompt_texts)]
        total = sum(map(len, mine))
        bar = tqdm(total=total, desc=self.desc, unit="pair", leave=False, disable=self.processes.hides_bar)
        with bar, self._together():
            for chunk in mine:
                part = chunk[np.isnan(values[chunk, 0])]
                bar.update(len(chunk) - len(part))

                def keep(done: Sequence[int], scores: PairScores, part: np.ndarray = part) -> None:
                    values[part[done]] = np.stack([column[done] for column in scores], axis=1)
                    self._note((pair(n), values[n].tolist()) for n in part[done])

                asked, answers = [pair(n)[0] for n in part], [pair(n)[1] for n in part]
                names = [name(int(first[n])) for n in part]
                score_pairs(*self.asked, asked, answers, names=names, bar=bar, on_scored=keep, **self.how)
        self.processes.gather(((int(n), values[n]) for chunk in mine for n in chunk), values)
        return index, values

    def _parts(self, prompts: Sequence[str]) -> list[list[int]]:
        """This process's prompts, in parts in which those stand together that begin alike."""
        order = sorted(range(len(prompts)), key=prompts.__getitem__)
        size = min(PROMPTS_AT_ONCE, -(-len(order) // self.processes.count))
        return self.processes.share([order[begin : begin + size] for begin in range(0, len(order), size)])

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """What the model says to each prompt, greedily and by itself; asked once for each distinct one."""
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}

        def ask(mine: list[str], keep: Keep) -> None:
            desc = f"{self.desc}: answers"
            greedy_answers(*self.asked, mine, max_new_tokens=GENERATED_TOKENS, on_done=keep, desc=desc, **self.how)

        said = self._texts(distinct, ask)
        return [said[distinct[prompt]] for prompt in prompts]

    def texts(self, openings: Sequence[tuple[str, str]]) -> list[str]:
        """A sampled text for each (edit_id, opening); an opening that stands twice gets two."""
        keys = {(edit_id, str(place), opening): place for place, (edit_id, opening) in enumerate(openings)}

        def ask(mine: list[tuple[str, ...]], keep: Keep) -> None:
            seeds = [xxhash.xxh3_64_intdigest("\0".join(key).encode(), self.seed) >> 1 for key in mine]
            how = {"tokens_per_batch": self.how["tokens_per_batch"], "desc": f"{self.desc}: texts"}
            sample_continuations(*self.asked, [key[-1] for key in mine], seeds, on_done=keep, **how)

        return self._texts(keys, ask)

    def close(self) -> None:
        """Close the journal."""
        if self.journal is not None:
            self.journal.close()

    def _texts(self, places: dict[Any, int], ask: Callable[[list[Any], Keep], None]) -> list[str]:
        """The text of each key at its place: known, or asked for by the process whose share it is."""
        found: list[Any] = [None] * len(places)
        for key, text in self._known(places):
            found[places[key]] = text
        mine = self.processes.share(sorted(places, key=lambda key: len(key if isinstance(key, str) else key[-1])))
        missing = [key for key in mine if found[places[key]] is None]

        def keep(done: Sequence[int], texts: Sequence[str]) -> None:
            for position, text in zip(done, texts, strict=True):
                found[places[missing[position]]] = text
            self._note((missing[position], text) for position, text in zip(done, texts, strict=True))

        with self._together():
            if missing:
                ask(missing, keep)
        self.processes.gather(((places[key], found[places[key]]) for key in mine), found)
        return found

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Context in which each process asks its share; an error of one is one of all."""
        with self.processes.failing_together():
            yield

    def _known(self, keys: dict[Any, int]) -> list[tuple[Any, Any]]:
        found = {} if self.journal is None else self.journal.found
        return [(key, value) for key, value in found.items() if key in keys]

    def _note(self, findings: Iterable[tuple[Any, Any]]) -> None:
        if self.journal is not None:
            self.journal.add(findings)


def _ranges(begins: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """All indices from `begins[number]` up to `begins[number + 1]`, for each of `numbers`."""
    parts = [np.arange(begins[number], begins[number + 1]) for number in numbers]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=int)
