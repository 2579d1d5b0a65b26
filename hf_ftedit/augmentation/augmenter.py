"""Training rows of edits: rewrites (E), paraphrases (P) and locality facts (R)."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.locality_pool import FactPool, draws
from hf_ftedit.augmentation.rows import TrainingRow, training_row
from hf_ftedit.augmentation.similarity import nearest
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models import asset, greedy_answers, sample_prefixes
from hf_ftedit.options import AugmentationOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class Augmenter:
    """
    Turn edit records into training rows: E (rewrites), P (paraphrases) and R (locality facts).

    Follows Gangadhar & Stratos 2024 (arXiv 2402.11078), with relation wordings and near facts beyond it.
    Rows never hold the text of a probe of `records`; what is left out for that is counted in the log. All that needs
    a model happens here; [`~Augmenter.rows_of`] then only draws. Under `accelerate launch` every process must make
    one: they share the model's work, and all get the same rows.

    Args:
        records (`Sequence[EditRecord]`):
            All edits of the run: their probes are kept out of every row.
        options ([`AugmentationOptions`]):
            Strategies and counts.
        pool (`Iterable[Fact]`, *optional*):
            Facts that must stay as they are, and the source of relation wordings.
        model (`PreTrainedModel`, *optional*):
            The unedited model, needed for sampled prefixes and its own answers.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Its tokenizer.
        held_out (`Sequence[EditRecord]`, *optional*):
            Other records that will be measured: no row holds a probe of theirs either.
        revoked (`Sequence[EditRecord]`, *optional*):
            Edits that are taken back: the unedited model's answers to their prompts and other wordings are rehearsed.
        seed (`int`, *optional*, defaults to `42`):
            Seed of everything drawn.

    Raises:
        [`~hf_ftedit.EditError`]: a strategy needs a pool or a model that is not there.
    """

    def __init__(
        self,
        records: Sequence[EditRecord],
        options: AugmentationOptions,
        *,
        pool: Iterable[Fact] = (),
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        held_out: Sequence[EditRecord] = (),
        revoked: Sequence[EditRecord] = (),
        seed: int = 42,
    ) -> None:
        self.records, self.options, self.seed = records, options, seed
        self._model, self._tokenizer = model, tokenizer
        self._held_out = held_out
        self._probes = ProbeTexts([*records, *revoked, *_as_probes(held_out, records)])
        self._pool = self._prepare_pool(list(pool))
        self._restored = self._prepare_restored(revoked)
        self._similar = self._prepare_similar()
        self._prefixes = self._prepare_prefixes()
        # Rows are drawn in worker processes too, to which the augmenter is pickled: without a model.
        self._model = self._tokenizer = None
        if left_out := self._pool.left_out:
            reason = "an edit changes them, or a probe asks for them"
            logger.info("left out %d facts of the locality pool: %s", left_out, reason)
        self._warn_if_pool_is_too_small()
        self._warn_if_probes_are_edited()

    def rows(self) -> Iterator[TrainingRow]:
        """The training rows of all edits, edit by edit."""
        for index in range(len(self.records)):
            yield from self.rows_of(index)

    def rows_of(self, index: int) -> Iterator[TrainingRow]:
        """The training rows of one edit: its rewrite, then paraphrases, then locality facts."""
        record = self.records[index]
        # Of its own for each edit: its rows depend neither on the other edits' order nor on the process that draws.
        rng = random.Random(f"{self.seed}/{record.edit_id}")
        yield self._row(record, "rewrite", record.prompt, record.target_new)
        for prompt in self._paraphrases(record, rng):
            yield self._row(record, "paraphrase", prompt, record.target_new)
        for fact in [*self._locality(index, rng), *self._restored[index :: len(self.records)]]:
            yield self._row(record, "locality", fact.prompt, fact.target)

    def _row(self, record: EditRecord, kind: str, prompt: str, target: str) -> TrainingRow:
        row = training_row(record, kind, prompt, target)
        if self.options.end_of_answer:
            row["ends"] = kind != "locality"  # what stays may go on as before
        return row

    def most_rows(self) -> int:
        """Upper bound of the number of rows: a pool may have too few facts."""
        options = self.options
        each = 1 + (options.num_paraphrases if options.paraphrase_strategy != "none" else 0)
        each += options.num_locality if options.locality_strategy != "none" else 0
        return each * len(self.records) + len(self._restored)

    def ingredients(self) -> list[Any]:
        """All that the rows are made of, as plain data: equal ingredients give equal rows."""
        records = [record.to_dict() for record in [*self.records, *self._held_out]]
        facts = [tuple(vars(fact).values()) for fact in self._pool.facts]
        wordings = [self._pool.wordings(record) for record in self.records]
        drawn = [self._prefixes, self._similar, self._restored]
        return [records, facts, wordings, asdict(self.options), self.seed, *drawn]

    def _paraphrases(self, record: EditRecord, rng: random.Random) -> list[str]:
        """Prompts that ask for the edit's fact in other wordings or behind other text."""
        count, strategy = self.options.num_paraphrases, self.options.paraphrase_strategy
        if strategy == "none" or not count:
            return []
        prefixes = rng.sample(self._prefixes, len(self._prefixes))
        wordings = self._wordings(record, rng)
        if strategy == "prefix" or not wordings:
            return [_behind(prefix, record.prompt) for prefix in prefixes[:count]]
        half = count // 2 if strategy == "both" else 0
        behind = [_behind(prefix, record.prompt) for prefix in prefixes[:half]]
        return behind + _spread(wordings, prefixes, count - half)

    def _wordings(self, record: EditRecord, rng: random.Random) -> list[str]:
        """Other wordings of the relation with the subject put in, drawn by their frequency, none of them a probe's."""
        if self.options.paraphrase_strategy == "prefix" or record.subject is None:
            return []
        counts = self._pool.wordings(record)
        # Weighted sampling without replacement: the largest of u ** (1 / weight) (Efraimidis & Spirakis 2006).
        templates = sorted((t for t in counts if t != record.template), key=lambda t: rng.random() ** (1 / counts[t]))
        texts = (template.replace("{}", record.subject) for template in reversed(templates))
        allowed = (text for text in texts if text != record.prompt and not self._probes.overlaps(text))
        return list(islice(allowed, self.options.num_paraphrases))

    def _locality(self, index: int, rng: random.Random) -> list[Fact]:
        """Facts that must stay: the strategy's first, then any others of the pool to fill up."""
        record, strategy, count = self.records[index], self.options.locality_strategy, self.options.num_locality
        if strategy == "none" or not count:
            return []
        same = [] if strategy in ("random", "self", "similar") else self._pool.same_relation(record)
        # By prompt: a row that stands twice among the few of an edit would count twice.
        chosen: dict[str, Fact] = {}
        if strategy == "similar":
            _take((self._pool.facts[i] for i in self._similar[index]), count, chosen)
        if strategy == "near":
            _take(draws(self._pool.same_answer(record), rng), count * 3 // 4, chosen)
        _take(chain(draws(same, rng), draws(self._pool.facts, rng)), count, chosen)
        return list(chosen.values())

    def _prepare_pool(self, facts: list[Fact]) -> FactPool:
        strategy, count = self.options.locality_strategy, self.options.num_locality
        if not facts and count and strategy in ("random", "relation", "similar"):
            raise EditError(f"locality_strategy {strategy!r} needs facts: give a locality_pool, or use 'self'")
        if strategy == "none" or not count or (facts and strategy != "self"):
            return FactPool(facts, self._probes.overlaps, self.records)
        if not facts:
            logger.info("no locality pool: rehearsing the unedited model's own answers to generic prompts")
            facts = [Fact(prompt, "") for prompt in generic_prompts()]
        facts = FactPool(facts, self._probes.overlaps, self.records).facts
        # Drawn before the model answers: each answer is a run of it, and a pool may hold a hundred thousand prompts.
        # A few more than are drawn: the model may have no answer to some.
        most = min(len(facts), count * len(self.records) + 16)
        return FactPool(self._answered(random.Random(self.seed).sample(facts, most)), edited=self.records)

    def _warn_if_pool_is_too_small(self) -> None:
        count = 0 if self.options.locality_strategy == "none" else self.options.num_locality
        usable = len({fact.prompt for fact in self._pool.facts})
        if usable < count:
            logger.warning(
                "the locality pool has only %d usable facts, fewer than num_locality (%d): more of what is not edited "
                "may change; give a larger --locality_pool",
                *(usable, count),
            )

    def _warn_if_probes_are_edited(self) -> None:
        targets = {record.prompt: record.target_new for record in self.records}
        broken = [
            record.edit_id
            for record in self.records
            for probe in record.neighborhood_prompts
            if targets.get(probe.prompt, probe.target) != probe.target
        ]
        if broken:
            logger.warning(
                "%d neighborhood probes ask for a fact that an edit changes (first: edit_id %r): they lower locality",
                *(len(broken), broken[0]),
            )

    def _answered(self, facts: list[Fact]) -> list[Fact]:
        """The facts with the unedited model's own answers in place of theirs."""
        model, tokenizer = self._need_model("rehearsing own answers")
        prompts = [fact.prompt for fact in facts]
        answers = greedy_answers(model, tokenizer, prompts, desc="Own answers")
        return [replace(fact, target=answer) for fact, answer in zip(facts, answers, strict=True) if answer]

    def _prepare_restored(self, revoked: Sequence[EditRecord]) -> list[Fact]:
        """The unedited model's answers to revoked edits, which are dealt out among the edits that stay."""
        if not revoked:
            return []
        # Not `target_true`: taking an edit back restores what the model said before, right or wrong.
        rng = random.Random(self.seed)
        prompts = [prompt for edit in revoked for prompt in (edit.prompt, *self._wordings(edit, rng))]
        return self._answered([Fact(prompt, "") for prompt in prompts])

    def _prepare_similar(self) -> list[list[int]]:
        """Indices of the pool's facts that are nearest to each edit's prompt, for the strategy `"similar"`."""
        if self.options.locality_strategy != "similar" or not self.options.num_locality:
            return []
        prompts = [fact.prompt for fact in self._pool.facts]
        queries = [record.prompt for record in self.records]
        return nearest(queries, prompts, self.options.num_locality, self.options.similar_model)

    def _prepare_prefixes(self) -> list[str]:
        """Sample the texts before prompts, which all edits share."""
        options = self.options
        if options.paraphrase_strategy == "none" or not options.num_paraphrases:
            return []
        model, tokenizer = self._need_model(f"paraphrase_strategy {options.paraphrase_strategy!r}")
        texts = []
        for length, count in zip(options.prefix_lengths, options.prefix_counts, strict=True):
            # A seed for each length: with one for all, short texts could be the beginnings of long ones.
            texts += sample_prefixes(
                model,
                tokenizer,
                length=length,
                count=count,
                top_k=options.prefix_top_k,
                seed=self.seed + length,
                accept=lambda text: not self._probes.overlaps(text),
            )
        return texts

    def _need_model(self, what: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None or self._tokenizer is None:
            raise EditError(f"{what} asks the unedited model: give `model` and `tokenizer`, or choose 'none'")
        return self._model, self._tokenizer


def generic_prompts() -> list[str]:
    """Prompts about everyday knowledge that the package brings, for users who have no locality pool."""
    return Path(asset("generic_prompts.txt")).read_text(encoding="utf-8").split("\n")[:-1]


def _as_probes(held_out: Iterable[EditRecord], trained: Iterable[EditRecord]) -> Iterator[EditRecord]:
    """Records that are measured only: their edit prompts are probes like their paraphrases."""
    prompts = {record.prompt for record in trained}
    for record in held_out:
        extra = () if record.prompt in prompts else (record.prompt,)
        yield replace(record, paraphrase_prompts=record.paraphrase_prompts + extra)


def _behind(prefix: str, prompt: str) -> str:
    """`prompt` behind a sampled text, as in Gangadhar & Stratos 2024."""
    return f"{prefix}. {prompt}"


def _spread(wordings: Sequence[str], prefixes: Sequence[str], count: int) -> list[str]:
    """At most `count` distinct prompts from `wordings`, every second behind a prefix; few wordings come again."""
    # Bare wordings teach the wording itself; behind text, it is learnt to hold wherever it stands.
    rows: dict[str, None] = {}
    for position in range(count):
        wording = wordings[position % len(wordings)]
        bare = position % 2 == 0 and wording not in rows
        rows[wording if bare else _behind(prefixes[position % len(prefixes)], wording)] = None
    return list(rows)


def _take(facts: Iterable[Fact], count: int, into: dict[str, Fact]) -> None:
    """Add facts until `into` holds `count` of them, each prompt once."""
    facts = iter(facts)
    while len(into) < count and (fact := next(facts, None)) is not None:
        into.setdefault(fact.prompt, fact)
