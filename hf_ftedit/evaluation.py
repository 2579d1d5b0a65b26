"""Model and probes to predictions: each distinct prompt and target asked once, by one of the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from hf_ftedit.answers import containment, exact_match
from hf_ftedit.fluency import consistency, ngram_entropy
from hf_ftedit.generation import greedy_answers, sampled_texts
from hf_ftedit.journal import Journal, fingerprint
from hf_ftedit.likelihood import PairScores, score_pairs
from hf_ftedit.loading import load_config, load_model, load_tokenizer
from hf_ftedit.probes import ProbedTarget, check_lengths, filled, probed_targets
from hf_ftedit.records import EditError, EditRecord
from hf_ftedit.tokenization import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED_TOKENS = 32
PROMPTS_AT_ONCE = 8192  # tokenized at once, so that memory does not grow with the edits


def load_checked(
    name: str | None,
    records: Iterable[EditRecord],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    chat_template: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Model and tokenizer of `name`; the edits are checked to fit into its context before its weights are read.

    Args:
        name (`str`, *optional*):
            Hub id or folder; the embedded model without one.
        records (`Iterable[EditRecord]`):
            Edits that it will be asked about.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Another tokenizer than the model's own.
        chat_template (`bool`, *optional*, defaults to `False`):
            Whether it will be asked through the chat template.
        revision (`str`, *optional*):
            Branch, tag or commit.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the repository brings.
        kwargs:
            Passed to [`~hf_ftedit.loading.load_model`].

    Raises:
        [`~hf_ftedit.records.EditError`]: there is no such model, or an edit does not fit.
    """
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = tokenizer or load_tokenizer(name, **source)
    check_lengths(records, tokenizer, context_length(load_config(name, **source)), chat_template=chat_template)
    return load_model(name, **source, **kwargs), tokenizer


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 2048,
    generate: bool = False,
    fluency: bool = False,
    seed: int = 0,
    journal: str | Path | None = None,
    desc: str = "Evaluating",
) -> dict[str, list[Any]]:
    """
    Predictions of `model` for all probes of `records`: all that [`~hf_ftedit.scoring.score`] needs.

    Each distinct (prompt, target) is computed once, however many probes share it. Under `accelerate launch` every
    process must call this: each computes its share, and all return everything.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records whose neighborhood probes have targets, see [`fill_neighborhood_targets`].
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
        generate (`bool`, *optional*, defaults to `False`):
            Let the model answer each probe by itself too: greedy, at most 32 tokens whatever the target's length, up
            to the end of the sequence, the line or the sentence. Why: Yang et al. 2025, arXiv 2502.11177.
        fluency (`bool`, *optional*, defaults to `False`):
            Let the model go on from the `generation_prompts`, sampled among the five likeliest tokens up to 100 tokens
            in all, and measure fluency and, against `reference_texts`, consistency (Meng et al. 2022).
        seed (`int`, *optional*, defaults to `0`):
            Seed of those texts.
        journal (`str` or `Path`, *optional*):
            File that keeps what is found, such as `scores/unfinished/after.jsonl`: a run that was stopped goes on from
            it when it is called again.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.

    Returns:
        `dict[str, list]`: columns `edit_id`, `kind`, `aspect`, `probe`, `target`, `answer`, `logprob`, `match`,
        `token_accuracy`, one row per (probe, target); with `generate` also `generated`, `exact_match` and
        `containment` (of the target or its aliases in it); with `fluency` also a row of the kind `generation` for each
        text, with `text`, `fluency` (in bits) and `consistency`.

    Raises:
        [`~hf_ftedit.records.EditError`]: there are no edits, one does not fit into the model's context, or the journal
            is of another model or of other settings.
    """
    asked = list(dict.fromkeys(probed_targets(records)))
    if not asked:
        raise EditError("there are no edits to measure")
    work = _Work(model, tokenizer, chat_template, tokens_per_batch, desc, journal, seed)
    index, values = work.scores(asked)
    logprob, match, token_accuracy = values.T
    columns: dict[str, list[Any]] = {
        "edit_id": [row.edit_id for row in asked],
        "kind": [row.kind for row in asked],
        "aspect": [row.aspect for row in asked],
        "probe": [row.prompt for row in asked],
        "target": [row.role for row in asked],
        "answer": [row.answer for row in asked],
        "logprob": logprob[index].tolist(),
        "match": (match[index] == 1).tolist(),
        "token_accuracy": token_accuracy[index].tolist(),
    }
    if generate:
        said = work.answers([row.prompt for row in asked])
        names = [(row.answer, *row.aliases) for row in asked]
        columns["generated"] = said
        columns["exact_match"] = list(map(exact_match, said, names))
        columns["containment"] = list(map(containment, said, names))
    if fluency:
        columns = _joined(columns, work.texts(records))
    work.close()
    return columns


def fill_neighborhood_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EditRecord],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 2048,
) -> list[EditRecord]:
    """
    Records whose neighborhood probes all have targets: where the data gives none, the unedited model's own answer.

    Args:
        model (`PreTrainedModel`):
            The unedited model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            Records as they were read.
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the chat template.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch; halved where memory does not suffice.
    """
    open_prompts = {p.prompt for record in records for p in record.neighborhood_prompts if p.target is None}
    if not open_prompts:
        return list(records)
    prompts = sorted(open_prompts)
    how: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
    answers = greedy_answers(model, tokenizer, prompts, desc="Answering locality probes", **how)
    known = dict(zip(prompts, answers, strict=True))
    return [filled(record, known) for record in records]


class _Work:
    """Asks a model, each process its share, and keeps what it says in a journal where there is one."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chat_template: bool,
        tokens_per_batch: int,
        desc: str,
        journal: Any,
        seed: int,
    ) -> None:
        self.model, self.tokenizer, self.desc, self.seed = model, tokenizer, desc, seed
        self.how: dict[str, Any] = {"chat_template": chat_template, "tokens_per_batch": tokens_per_batch}
        self.state = PartialState()
        self.rank, self.processes = self.state.process_index, self.state.num_processes
        if any(hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in model.parameters()):
            self.rank, self.processes = 0, 1  # of a sharded model every process must run every batch
        self.journal = None
        if journal is not None:
            told = fingerprint(model, chat_template=chat_template, seed=seed)
            self.journal = Journal(journal, told, self.state.process_index)

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def scores(self, asked: Sequence[ProbedTarget]) -> tuple[np.ndarray, np.ndarray]:
        """Index of each row's (prompt, target) among the distinct ones, and their scores, shape `(pairs, 3)`."""
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
        mine = self._share(list(by_prompt))
        open_pairs = [n for prompt in mine for n in by_prompt[prompt] if np.isnan(values[n, 0])]
        with tqdm(total=len(open_pairs), desc=self.desc, unit="pair", leave=False, disable=self._hides_bar()) as bar:
            for begin in range(0, len(mine), PROMPTS_AT_ONCE):
                chunk = [n for prompt in mine[begin : begin + PROMPTS_AT_ONCE] for n in by_prompt[prompt]]
                part = np.array([n for n in chunk if np.isnan(values[n, 0])], dtype=int)

                def keep(done: Sequence[int], scores: PairScores, part: np.ndarray = part) -> None:
                    values[part[done]] = np.stack([column[done] for column in scores], axis=1)
                    self._note((pairs[n], values[n].tolist()) for n in part[done])

                prompts, targets = ([pairs[n][side] for n in part] for side in (0, 1))
                names = [owners[n].name for n in part]
                score_pairs(
                    self.model, self.tokenizer, prompts, targets, names=names, bar=bar, on_scored=keep, **self.how
                )
        self._gather(((n, values[n]) for prompt in mine for n in by_prompt[prompt]), values)
        return index, values

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """What the model says to each prompt."""
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}

        def ask(mine: list[str], keep: Callable[[Sequence[int], Sequence[str]], None]) -> None:
            how = {"max_new_tokens": GENERATED_TOKENS, "on_done": keep, "desc": "Answering", **self.how}
            greedy_answers(self.model, self.tokenizer, mine, **how)

        said = self._texts(distinct, ask)
        return [said[distinct[prompt]] for prompt in prompts]

    def texts(self, records: Sequence[EditRecord]) -> dict[str, list[Any]]:
        """Rows of generated text, with fluency and consistency."""
        rows = [(r.edit_id, prompt, n) for r in records for n, prompt in enumerate(r.generation_prompts)]
        if not rows:
            raise EditError("fluency is asked for, but no edit has generation_prompts; give some, or leave it off")
        # Numbered in the key: a prompt that stands twice is sampled twice.
        keys = {(edit_id, str(n), prompt): number for number, (edit_id, prompt, n) in enumerate(rows)}

        def ask(mine: list[Any], keep: Callable[[Sequence[int], Sequence[str]], None]) -> None:
            seeds = [xxhash.xxh3_64_intdigest("\x00".join(key).encode(), seed=self.seed) >> 1 for key in mine]
            prompts, budget = [prompt for _, _, prompt in mine], self.how["tokens_per_batch"]
            sampled_texts(self.model, self.tokenizer, prompts, seeds, tokens_per_batch=budget, on_done=keep)

        texts = self._texts(keys, ask)
        written: dict[str, list[str]] = {record.edit_id: [] for record in records}
        for (edit_id, _, _), text in zip(rows, texts, strict=True):
            written[edit_id].append(text)
        similar = consistency(list(written.values()), [record.reference_texts for record in records])
        agrees = dict(zip(written, similar, strict=True))
        return {
            "edit_id": [edit_id for edit_id, _, _ in rows],
            "kind": ["generation"] * len(rows),
            "probe": [prompt for _, prompt, _ in rows],
            "text": texts,
            "fluency": [ngram_entropy(text) for text in texts],
            "consistency": [agrees[edit_id] for edit_id, _, _ in rows],
        }

    def _texts(self, keys: dict[Any, int], ask: Callable[..., None]) -> list[str]:
        """The text of each key: known, or asked for by the process whose share it is."""
        found: list[Any] = [None] * len(keys)
        for key, text in self._known(keys):
            found[keys[key]] = text
        mine = self._share(list(keys))
        missing = [key for key in mine if found[keys[key]] is None]

        def keep(done: Sequence[int], texts: Sequence[str]) -> None:
            for position, text in zip(done, texts, strict=True):
                found[keys[missing[position]]] = text
            self._note((missing[position], text) for position, text in zip(done, texts, strict=True))

        if missing or self.processes == 1:
            ask(missing, keep)
        self._gather(((keys[key], found[keys[key]]) for key in mine), found)
        return found

    def _share(self, keys: list[Any]) -> list[Any]:
        """This process's part, similar in length to every other's."""
        return sorted(keys, key=lambda key: len(key if isinstance(key, str) else key[-1]))[self.rank :: self.processes]

    def _known(self, keys: dict[Any, int]) -> Iterable[tuple[Any, Any]]:
        found = {} if self.journal is None else self.journal.found
        return [(key, value) for key, value in found.items() if key in keys]

    def _note(self, findings: Iterable[tuple[Any, Any]]) -> None:
        if self.journal is not None:
            self.journal.add(findings)

    def _gather(self, mine: Iterable[tuple[int, Any]], into: Any) -> None:
        """Put what every process found into `into`."""
        if self.processes > 1:
            for position, value in gather_object(list(mine)):
                into[position] = value

    def _hides_bar(self) -> bool | None:
        return None if self.state.is_main_process else True


def _joined(columns: dict[str, list[Any]], texts: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of probes and rows of texts in one table, empty where a row has no such value."""
    sizes = [len(part["edit_id"]) for part in (columns, texts)]
    return {
        name: [*columns.get(name, [None] * sizes[0]), *texts.get(name, [None] * sizes[1])]
        for name in dict.fromkeys([*columns, *texts])
    }
