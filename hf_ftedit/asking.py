"""A model asked about many prompts: each process its share, and what it says kept in a journal where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xxhash
from tqdm.auto import tqdm

from hf_ftedit.generation import greedy_answers, sampled_texts
from hf_ftedit.journal import Journal, fingerprint
from hf_ftedit.likelihood import PairScores, score_pairs
from hf_ftedit.probes import ProbedTarget
from hf_ftedit.processes import Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED_TOKENS = 32
PROMPTS_AT_ONCE = 8192  # tokenized at once, so that memory does not grow with the edits

Keep: TypeAlias = Callable[[Sequence[int], Sequence[str]], None]


class Asker:
    """
    Asks a model; see [`~hf_ftedit.evaluation.predict`] for the arguments.

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
            File that keeps what is found.
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
            settings = fingerprint(model, chat_template=chat_template, seed=seed)
            self.journal = Journal(journal, settings, self.processes.rank)

    def scores(self, asked: Sequence[ProbedTarget]) -> tuple[np.ndarray, np.ndarray]:
        """
        Score targets, each distinct (prompt, target) once.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: of shape `(asked,)`, the index of each one's distinct pair; and of shape
            `(pairs, 3)` their mean log-probability, match and token accuracy.
        """
        distinct: dict[tuple[str, str], int] = {}
        index = np.array([distinct.setdefault((row.prompt, row.answer), len(distinct)) for row in asked])
        owners = dict(zip(reversed(index), reversed(asked), strict=True))
        pairs = list(distinct)
        values = np.full((len(pairs), 3), np.nan)
        for pair, value in self._known(distinct):
            values[distinct[pair]] = value
        by_prompt: dict[str, list[int]] = {}
        for (prompt, _), number in distinct.items():
            by_prompt.setdefault(prompt, []).append(number)
        mine = self.processes.share(sorted(by_prompt, key=len))
        with tqdm(
            total=sum(len(by_prompt[prompt]) for prompt in mine),
            desc=self.desc,
            unit="pair",
            leave=False,
            disable=self.processes.hides_bar,
        ) as bar:
            for begin in range(0, len(mine), PROMPTS_AT_ONCE):
                chunk = np.array([n for prompt in mine[begin : begin + PROMPTS_AT_ONCE] for n in by_prompt[prompt]])
                part = chunk[np.isnan(values[chunk, 0])]
                bar.update(len(chunk) - len(part))

                def keep(done: Sequence[int], scores: PairScores, part: np.ndarray = part) -> None:
                    values[part[done]] = np.stack([column[done] for column in scores], axis=1)
                    self._note((pairs[n], values[n].tolist()) for n in part[done])

                prompts, targets = ([pairs[n][side] for n in part] for side in (0, 1))
                names = [owners[n].name for n in part]
                score_pairs(*self.asked, prompts, targets, names=names, bar=bar, on_scored=keep, **self.how)
        self.processes.gather(((n, values[n]) for prompt in mine for n in by_prompt[prompt]), values)
        return index, values

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
            sampled_texts(*self.asked, [key[-1] for key in mine], seeds, on_done=keep, **how)

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

        if missing:
            ask(missing, keep)
        self.processes.gather(((places[key], found[places[key]]) for key in mine), found)
        return found

    def _known(self, keys: dict[Any, int]) -> list[tuple[Any, Any]]:
        found = {} if self.journal is None else self.journal.found
        return [(key, value) for key, value in found.items() if key in keys]

    def _note(self, findings: Iterable[tuple[Any, Any]]) -> None:
        if self.journal is not None:
            self.journal.add(findings)
