"""The locality pool, indexed: the facts and the wordings of each relation; and the nearest of its texts."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from hf_ftedit.data import EditRecord, Fact, Statement, folded
from hf_ftedit.errors import EditError, first_line
from hf_ftedit.models import Processes


class FactPool:
    """Facts that must stay as they are, by relation and answer, and the wordings in which each relation occurs."""

    def __init__(
        self,
        facts: Iterable[Fact],
        overlaps: Callable[[str], bool] = lambda text: False,
        edited: Sequence[EditRecord] = (),
    ) -> None:
        # In their order, which a set would lose: the same seed must draw the same facts.
        facts = list(dict.fromkeys(facts))
        # A template that occurs with an id stands for that id, so that facts without one join their relation.
        named = [(item.template, item.relation_id) for item in [*facts, *edited] if item.relation_id]
        self._ids = {template: relation_id for template, relation_id in named if template}
        changed = {(self.relation(record), folded(record.subject)) for record in edited if record.subject}
        prompts = {folded(record.prompt) for record in edited}
        # Training on a fact that an edit changes undoes the edit; on a probe's text, it spoils the score.
        usable = (fact for fact in facts if (self.relation(fact), folded(fact.subject or "")) not in changed)
        self.facts = [fact for fact in usable if folded(fact.prompt) not in prompts and not overlaps(fact.prompt)]
        self.left_out = len(facts) - len(self.facts)
        self._by_relation: dict[str, list[Fact]] = defaultdict(list)
        self._wordings: dict[str, Counter[str]] = defaultdict(Counter)
        for fact in self.facts:
            if relation := self.relation(fact):
                self._by_relation[relation].append(fact)
        # All facts: the wording of one that is left out is still a wording.
        for item in [*facts, *edited]:
            if (template := item.template) and (relation := self.relation(item)):
                self._wordings[relation][template] += 1

    def relation(self, item: Statement) -> str | None:
        """The key of an item's relation: its id, or the template of the prompt, or None."""
        return item.relation_id or self._ids.get(item.template or "") or item.template

    def wordings(self, record: EditRecord) -> dict[str, int]:
        """Templates with `{}` for the subject in which the record's relation occurs, and how often."""
        return self._wordings.get(self.relation(record) or "", {})

    def same_relation(self, record: EditRecord) -> list[Fact]:
        """Facts with the record's relation about other subjects."""
        return self._by_relation.get(self.relation(record) or "", [])

    def same_answer(self, record: EditRecord) -> list[Fact]:
        """Facts with the record's relation and its old answer about other subjects."""
        return [fact for fact in self.same_relation(record) if fact.target == record.target_true]


def draws(items: Sequence[Fact], rng: random.Random) -> Iterator[Fact]:
    """`items` in random order without repetition, drawn one at a time."""
    # Fisher-Yates on a dict of swaps: shuffling the whole pool for each of 10,000 edits costs minutes.
    swapped: dict[int, int] = {}
    for position in range(len(items)):
        chosen = rng.randrange(position, len(items))
        yield items[swapped.get(chosen, chosen)]
        swapped[chosen] = swapped.get(position, position)


def nearest(queries: Sequence[str], texts: Sequence[str], count: int, model_name: str) -> list[list[int]]:
    """Find the `count` texts nearest to each query by cosine similarity; their indices, nearest first."""
    # As Gangadhar & Stratos 2024 (arXiv 2402.11078) choose the locality facts of single edits.
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.util import semantic_search
    except ImportError as error:
        raise EditError("locality_strategy 'similar' needs an extra: pip install 'hf-ftedit[similar]'") from error
    try:
        model = SentenceTransformer(model_name)
    except (OSError, ValueError) as error:
        raise EditError(f"similar_model {model_name!r} cannot be loaded: {first_line(error)}") from error
    # Under `accelerate launch` every process must come here: each embeds its share.
    processes = Processes()
    shows_bar = processes.is_main and sys.stderr.isatty()
    vectors: list[Any] = processes.each_once(
        [*queries, *texts], lambda share: list(model.encode(share, show_progress_bar=shows_bar))
    )
    ours, pool = (torch.tensor(np.array(part)) for part in (vectors[: len(queries)], vectors[len(queries) :]))
    neighbors = semantic_search(ours, pool, top_k=min(count, len(texts)))
    return [[int(hit["corpus_id"]) for hit in hits] for hits in neighbors]
