"""The locality pool, indexed: which facts and which wordings there are for a relation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from hf_ftedit.data import EditRecord, Fact, Statement


class FactPool:
    """
    Facts that must stay as they are, by relation and answer, and the wordings in which each relation occurs.

    A relation is known by its `relation_id` or, without one, by the prompt's template; a template that occurs with an
    id stands for that id.

    Args:
        facts (`Iterable[Fact]`):
            The pool. Facts that an edit changes (same subject and relation) must have been left out.
        overlaps (`Callable[[str], bool]`):
            Tells texts that must not be trained on, see [`~hf_ftedit.augmentation.leakage.ProbeTexts`]; such facts are
            left out and counted in `left_out`.
        edited (`Iterable[EditRecord]`):
            The edits; a fact about an edited subject and relation, or with an edit's prompt, is left out too.
    """

    def __init__(
        self,
        facts: Iterable[Fact],
        overlaps: Callable[[str], bool] = lambda text: False,
        edited: Sequence[EditRecord] = (),
    ) -> None:
        facts = list(dict.fromkeys(facts))
        self._ids = {
            item.template: item.relation_id for item in [*facts, *edited] if item.template and item.relation_id
        }
        changed = {(self.relation(record), record.subject) for record in edited if record.subject}
        prompts = {record.prompt for record in edited}
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
        for item in [*facts, *edited]:  # the wording of a fact that is left out is still a wording
            if item.template and (relation := self.relation(item)):
                found = self._wordings[relation]
                found[item.template] = found.get(item.template, 0) + 1

    def relation(self, item: Statement) -> str | None:
        """What the facts of one relation share: its id, or the template of the prompt, or nothing."""
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
    """`items` in random order without repetition, drawn one at a time: cheap when few of many are wanted."""
    swapped: dict[int, int] = {}
    for position in range(len(items)):
        chosen = rng.randrange(position, len(items))
        yield items[swapped.get(chosen, chosen)]
        swapped[chosen] = swapped.get(position, position)
