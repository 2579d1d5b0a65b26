"""The locality pool, indexed: the facts and the wordings of each relation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from hf_ftedit.data import EditRecord, Fact, Statement


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
        changed = {(self.relation(record), record.subject) for record in edited if record.subject}
        prompts = {record.prompt for record in edited}
        # Training on a fact that an edit changes undoes the edit; on a probe's text, it spoils the score.
        self.facts = [
            fact
            for fact in facts
            if (self.relation(fact), fact.subject) not in changed
            and fact.prompt not in prompts
            and not overlaps(fact.prompt)
        ]
        self.left_out = len(facts) - len(self.facts)
        self._by_relation: dict[str, list[Fact]] = defaultdict(list)
        self._by_answer: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        self._wordings: dict[str, dict[str, int]] = defaultdict(dict)
        for fact in self.facts:
            if relation := self.relation(fact):
                self._by_relation[relation].append(fact)
                self._by_answer[relation, fact.target].append(fact)
        # All facts: the wording of one that is left out is still a wording.
        for item in [*facts, *edited]:
            if (template := item.template) and (relation := self.relation(item)):
                counts = self._wordings[relation]
                counts[template] = counts.get(template, 0) + 1

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
        return self._by_answer.get((self.relation(record) or "", record.target_true or ""), [])


def draws(items: Sequence[Fact], rng: random.Random) -> Iterator[Fact]:
    """`items` in random order without repetition, drawn one at a time."""
    # Fisher-Yates on a dict of swaps: shuffling the whole pool for each of 10,000 edits costs minutes.
    swapped: dict[int, int] = {}
    for position in range(len(items)):
        chosen = rng.randrange(position, len(items))
        yield items[swapped.get(chosen, chosen)]
        swapped[chosen] = swapped.get(position, position)
