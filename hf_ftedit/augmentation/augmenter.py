"""Training rows of edits: rewrites (E), paraphrases (P) and locality facts (R)."""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.locality_pool import FactPool, draws, nearest
from hf_ftedit.augmentation.rows import TrainingRow, training_row
from hf_ftedit.data import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models import asset, greedy_answers, sample_prefixes
from hf_ftedit.options import AugmentationOptions
from hf_ftedit.text import counted

logger = logging.getLogger(__name__)


class Augmenter:
    """
    Turn edit records into training rows: E (rewrites), P (paraphrases) and R (locality facts).

    Follows Gangadhar & Stratos 2024 (arXiv 2402.11078), with relation wordings and near facts beyond it.
    Rows never hold the text of a probe of `records`; what is left out for that is counted in the log. All that needs
    a model happens here; [`~Augmenter.rows_of`] then only draws. Under `accelerate launch` every process must make
    one: they share the model's work, and all get the same rows.

    Args:
        records (`Sequence[EditRecord]`): All edits of the run: their probes are kept out of every row.
        options ([`AugmentationOptions`]): Strategies and counts.
        pool (`Iterable[Fact]`, *optional*): Facts that must stay as they are, and the source of relation wordings.
        model, tokenizer, held_out, revoked, seed:
            As those of [`EditDatasetBuilder`].

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
        self._probes = ProbeTexts([*records, *revoked], held_out)
        self._n_paraphrases = options.num_paraphrases if options.paraphrase_strategy != "none" else 0
        self._n_locality = options.num_locality if options.locality_strategy != "none" else 0
        lost = (record.edit_id for record in records if any(map(self._probes.overlaps, record.wordings)))
        if self._n_paraphrases and (first := next(lost, None)) is not None:
            logger.warning("wordings that hold a probe are not trained on, first in edit_id %r", first)
        self._prepare(list(pool), model, tokenizer, revoked)

    def _prepare(self, facts: list[Fact], model: Any, tokenizer: Any, revoked: Sequence[EditRecord]) -> None:
        """Do all that needs a model, or that edits share."""
        options, self._model, self._tokenizer = self.options, model, tokenizer
        self._pool = self._prepare_pool(facts)
        self._restored = self._prepare_restored(revoked)
        self._similar: list[list[int]] = []  # of each edit, the pool's facts that are nearest to its prompt
        if options.locality_strategy == "similar" and self._n_locality:
            prompts, queries = ([item.prompt for item in items] for items in (self._pool.facts, self.records))
            self._similar = nearest(queries, prompts, self._n_locality, options.similar_model)
        self._prefixes = self._prepare_prefixes()
        # Rows are drawn in worker processes too, to which the augmenter is pickled: without a model.
        self._model = self._tokenizer = None
        if left_out := self._pool.left_out:
            number = counted(left_out, "fact")
            logger.info("left out %s of the pool that an edit changes, or a probe asks for", number)
        self._warn()

    def rows(self) -> Iterator[TrainingRow]:
        """The training rows of all edits, edit by edit."""
        for index in range(len(self.records)):
            yield from self.rows_of(index)

    def rows_of(self, index: int) -> Iterator[TrainingRow]:
        """The training rows of one edit: its rewrite, then paraphrases, then locality facts."""
        record = self.records[index]
        # Of its own for each edit: its rows depend neither on the other edits' order nor on the process that draws.
        rng = random.Random(f"{self.seed}/{record.edit_id}")
        yield self._plain_row(record, "rewrite", record.prompt, record.target_new)
        for prompt in self._paraphrases(record, rng):
            yield self._plain_row(record, "paraphrase", prompt, record.target_new)
        for fact in [*self._locality(index, rng), *self._restored[index :: len(self.records)]]:
            yield self._plain_row(record, "locality", fact.prompt, fact.target)

    def _plain_row(self, record: EditRecord, kind: str, prompt: str, target: str) -> TrainingRow:
        row = training_row(record, kind, prompt, target)
        if self.options.end_of_answer:
            row["ends"] = kind != "locality"  # what stays may go on as before
        return row

    def most_rows(self) -> int:
        """Upper bound of the number of rows: a pool may have too few facts."""
        return (1 + self._n_paraphrases + self._n_locality) * len(self.records) + len(self._restored)

    def ingredients(self) -> list[Any]:
        """All that the rows are made of beside the edits, as plain data: equal ingredients give equal rows."""
        facts = [tuple(vars(fact).values()) for fact in self._pool.facts]
        wordings = [self._pool.wordings(record) for record in self.records]
        return [facts, wordings, asdict(self.options), self.seed, self._prefixes, self._similar, self._restored]

    def _paraphrases(self, record: EditRecord, rng: random.Random) -> list[str]:
        """Prompts that ask for the edit's fact in other wordings or behind other text."""
        count = self._n_paraphrases
        if not count:
            return []
        prefixes = rng.sample(self._prefixes, len(self._prefixes))
        wordings = self._drawn_wordings(record, rng)
        behind = [f"{prefix}. {record.prompt}" for prefix in prefixes[:count]]  # as in Gangadhar & Stratos 2024
        if not wordings:
            return behind
        half = count // 2 if self.options.paraphrase_strategy == "both" else 0
        return behind[:half] + _spread(wordings, prefixes, count - half)

    def _drawn_wordings(self, record: EditRecord, rng: random.Random) -> list[str]:
        """The edit's own wordings, then others of its relation, drawn by their frequency; none of them a probe's."""
        if self.options.paraphrase_strategy == "prefix":
            return []
        own, subject = dict.fromkeys(record.wordings), record.subject
        counts = {} if subject is None else self._pool.wordings(record)
        # Weighted sampling without replacement: the largest of u ** (1 / weight) (Efraimidis & Spirakis 2006).
        templates = sorted((t for t in counts if t != record.template), key=lambda t: rng.random() ** (1 / counts[t]))
        others = (template.replace("{}", subject or "") for template in reversed(templates))
        texts = chain(own, (text for text in others if text not in own))
        allowed = (text for text in texts if text != record.prompt and not self._probes.overlaps(text))
        return list(islice(allowed, self.options.num_paraphrases))

    def _locality(self, index: int, rng: random.Random) -> list[Fact]:
        """Facts that must stay: the strategy's first, then any others of the pool to fill up."""
        record, strategy, count = self.records[index], self.options.locality_strategy, self._n_locality
        if not count:
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
        strategy, count = self.options.locality_strategy, self._n_locality
        if not facts and count and strategy in ("random", "relation", "similar"):
            raise EditError(f"locality_strategy {strategy!r} needs facts: give a locality_pool, or use 'self'")
        if not count or (facts and strategy != "self"):
            pool = FactPool(facts, self._probes.overlaps, self.records)
            if count and not pool.facts:
                raise EditError(
                    "no fact of the locality_pool can be rehearsed: each is edited, or a probe asks for it; give one "
                    "with other facts, or none"
                )
            return pool
        if not facts:
            logger.info("no locality pool: rehearsing the unedited model's own answers to generic prompts")
            facts = [Fact(prompt, "") for prompt in generic_prompts()]
        facts = FactPool(facts, self._probes.overlaps, self.records).facts
        # Drawn before the model answers: each answer is a run of it, and a pool may hold a hundred thousand prompts.
        # A few more than are drawn: the model may have no answer to some.
        most = min(len(facts), count * len(self.records) + 16)
        return FactPool(self._answered(random.Random(self.seed).sample(facts, most)), edited=self.records)

    def _warn(self) -> None:
        """Log what will make scores worse: too small a pool, probes of what is edited."""
        if (usable := len({fact.prompt for fact in self._pool.facts})) < self._n_locality:
            logger.warning(
                "the locality pool has only %s, fewer than num_locality (%d): more of what is not edited "
                "may change; give a larger --locality_pool",
                *(counted(usable, "usable fact"), self._n_locality),
            )
        targets = {record.prompt: record.target_new for record in self.records}
        probes = [(record.edit_id, probe) for record in self.records for probe in record.neighborhood_prompts]
        if broken := [name for name, probe in probes if targets.get(probe.prompt, probe.target) != probe.target]:
            logger.warning(
                "a fact that an edit changes is asked for by %s (first: edit_id %r), which lowers locality",
                *(counted(len(broken), "neighborhood probe"), broken[0]),
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
        prompts = [prompt for edit in revoked for prompt in (edit.prompt, *self._drawn_wordings(edit, rng))]
        return self._answered([Fact(prompt, "") for prompt in prompts])

    def _prepare_prefixes(self) -> list[str]:
        """Sample the texts before prompts, which all edits share."""
        options = self.options
        if not self._n_paraphrases:
            return []
        options.check_prefixes()
        model, tokenizer = self._need_model(f"paraphrase_strategy {options.paraphrase_strategy!r}")
        texts = []
        settings: dict[str, Any] = {"top_k": options.prefix_top_k}
        settings["accept"] = lambda text: not self._probes.overlaps(text)
        for length, count in zip(options.prefix_lengths, options.prefix_counts, strict=True):
            # A seed for each length: with one for all, short texts could be the beginnings of long ones.
            settings |= {"length": length, "count": count, "seed": self.seed + length}
            texts += sample_prefixes(model, tokenizer, **settings)
        return texts

    def _need_model(self, what: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None or self._tokenizer is None:
            raise EditError(f"{what} asks the unedited model: give `model` and `tokenizer`, or choose 'none'")
        return self._model, self._tokenizer


def generic_prompts() -> list[str]:
    """Prompts about everyday knowledge that the package brings, for users who have no locality pool."""
    return Path(asset("generic_prompts.txt")).read_text(encoding="utf-8").split("\n")[:-1]


def _spread(wordings: Sequence[str], prefixes: Sequence[str], count: int) -> list[str]:
    """At most `count` distinct prompts from `wordings`, every second behind a prefix; few wordings come again."""
    # Bare wordings teach the wording itself; behind text, it is learnt to hold wherever it stands.
    rows: dict[str, None] = {}
    for position in range(count):
        wording = wordings[position % len(wordings)]
        bare = position % 2 == 0 and wording not in rows
        rows[wording if bare else f"{prefixes[position % len(prefixes)]}. {wording}"] = None
    return list(rows)


def _take(facts: Iterable[Fact], count: int, into: dict[str, Fact]) -> None:
    """Add facts until `into` holds `count` of them, each prompt once."""
    facts = iter(facts)
    while len(into) < count and (fact := next(facts, None)) is not None:
        into.setdefault(fact.prompt, fact)
