"""Choose the embedded edits, their probes and the locality pool among the facts that the embedded model knows.

Called by make_embedded.py. Every subject plays one part in all relations: it is edited, or it stands in neighborhood
probes, or its facts are in the locality pool.
"""

import csv
import random
import re
from collections import Counter
from pathlib import Path

from statements import Tables, Wording

EDITS = 120
NEIGHBORS = 5
POOL_ROWS = 5000
PLAIN_WORDINGS = 4  # an edit prompt is one of the first wordings of its relation

Edit = tuple[str, str, str, str]  # relation, subject, new answer, counterfactual or update


class EditSetBuilder:
    """Chooses edits, then probes, then the pool, and keeps who has been used for what.

    Args:
        tables (`Tables`): facts and wordings.
        known (`set[Wording]`): the wordings that the model completes.
        rng (`random.Random`): makes the choice repeatable.
    """

    def __init__(self, tables: Tables, known: set[Wording], rng: random.Random) -> None:
        self.tables, self.known, self.rng = tables, known, rng
        self.edited: set[str] = set()
        self.neighbors: set[str] = set()

    def build(self, updates_file: Path, count: int = EDITS) -> tuple[list[dict], list[dict]]:
        """Returns `count` edit records and the rows of the locality pool."""
        edits = self.choose_updates(updates_file, count // 2)
        edits += self.choose_counterfactuals(count - len(edits), Counter(relation for relation, *_ in edits))
        return [self.edit_record(*edit) for edit in sorted(edits)], self.locality_pool()

    def choose_updates(self, path: Path, count: int) -> list[Edit]:
        """Takes edits from the hand-written table, evenly over the relations."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["relation"], row["subject"], row["target_new"], "update") for row in csv.DictReader(file)]
        self.rng.shuffle(rows)
        edits, per_relation = [], Counter()
        while rows and len(edits) < count:
            rows.sort(key=lambda row: per_relation[row[0]])
            relation, subject, new, kind = rows.pop(0)
            if self.tables.facts[relation][subject] == new:
                raise ValueError(f"{path}: {new!r} is the present answer of {subject!r} in {relation}")
            if self.can_be_edited(relation, subject):
                edits.append((relation, subject, new, kind))
                per_relation[relation] += 1
                self.edited.add(subject)
        return edits

    def choose_counterfactuals(self, count: int, taken: Counter) -> list[Edit]:
        """Takes subjects of the relations that have fewest edits, and gives each another answer of its relation."""
        edits = []
        while len(edits) < count:
            relation = min(self.tables.facts, key=lambda name: (taken[name], name))
            taken[relation] += 1
            table = self.tables.facts[relation]
            size = Counter(table.values())
            subjects = [subject for subject in table if self.can_be_edited(relation, subject)]
            self.rng.shuffle(subjects)
            subjects.sort(key=lambda subject: size[table[subject]] < NEIGHBORS)  # those with like neighbours first
            if subjects:
                self.edited.add(subjects[0])
                new = self.other_answer(relation, table[subjects[0]])
                edits.append((relation, subjects[0], new, "counterfactual"))
        return edits

    def can_be_edited(self, relation: str, subject: str) -> bool:
        """A subject is edited once, and all but one wording must be known at least, plain ones among them."""
        known = self.known_wordings(relation, subject)
        enough = len(known) >= len(self.tables.relations[relation]["wordings"]) - 1
        return enough and subject not in self.edited and min(known) < PLAIN_WORDINGS

    def known_wordings(self, relation: str, subject: str) -> list[int]:
        """The numbers of the wordings that the model completes, shuffled."""
        numbers = range(len(self.tables.relations[relation]["wordings"]))
        known = [number for number in numbers if (relation, subject, number) in self.known]
        return self.rng.sample(known, len(known))

    def other_answer(self, relation: str, true: str) -> str:
        """An answer of the same relation, with another consequence where the relation has consequences."""
        answers = sorted(set(self.tables.facts[relation].values()) - {true})
        consequence = {answer: self.tables.consequence(relation, answer) for answer in [*answers, true]}
        telling = [answer for answer in answers if consequence[answer] not in (None, consequence[true])]
        return self.rng.choice(telling or answers)

    def edit_record(self, relation: str, subject: str, new: str, kind: str) -> dict:
        """The edit with its probes."""
        number = next(n for n in self.known_wordings(relation, subject) if n < PLAIN_WORDINGS)
        name = re.sub("[^a-z0-9]+", "-", subject.lower()).strip("-")
        return {
            "edit_id": f"{kind}-{relation}-{name}",
            "prompt": self.tables.prompt(relation, subject, number),
            "subject": subject,
            "target_new": new,
            "target_true": self.tables.facts[relation][subject],
            "paraphrase_prompts": self.paraphrases(relation, subject, number),
            "neighborhood_prompts": self.neighborhood(relation, subject, new),
            "portability_prompts": self.portability(relation, subject, new),
            "generation_prompts": [f"{self.tables.lead_in(subject, self.rng)}."],
            "relation_id": relation,
        }

    def paraphrases(self, relation: str, subject: str, edit_number: int) -> list[str]:
        """Two or three other wordings, known or not, the first behind an unrelated sentence as in CounterFact."""
        others = [n for n in range(len(self.tables.relations[relation]["wordings"])) if n != edit_number]
        numbers = self.rng.sample(others, self.rng.choice((2, 3)))
        first, *rest = [self.tables.prompt(relation, subject, number) for number in numbers]
        return [f"{self.tables.filler_sentence(self.rng)}. {first}", *rest]

    def neighborhood(self, relation: str, subject: str, new: str) -> list[dict[str, str]]:
        """Facts of other subjects, those with the same answer first; half of these are left for the locality pool."""
        table = self.tables.facts[relation]
        free = [s for s in table if s not in self.edited and table[s] != new and self.known_wordings(relation, s)]
        self.rng.shuffle(free)
        free.sort(key=lambda s: s not in self.neighbors)  # use again what is reserved already
        same = [s for s in free if table[s] == table[subject]]
        picked = same[: min(NEIGHBORS, (len(same) + 1) // 2)]
        picked += [s for s in free if s not in same][: NEIGHBORS - len(picked)]
        self.neighbors.update(picked)
        numbers = [self.known_wordings(relation, s)[0] for s in picked]
        return [
            {"prompt": self.tables.prompt(relation, s, number), "target": table[s]}
            for s, number in zip(picked, numbers, strict=True)
        ]

    def portability(self, relation: str, subject: str, new: str) -> list[dict]:
        """Prompts whose answer follows from the new fact and did not follow from the old one."""
        before = self.tables.consequence(relation, self.tables.facts[relation][subject])
        answer = self.tables.consequence(relation, new)
        if None in (before, answer) or before == answer:
            return []
        wordings = self.tables.relations[relation]["portability"]["wordings"]
        return [{"prompt": wording.replace("{}", subject), "answers": [answer]} for wording in wordings]

    def locality_pool(self) -> list[dict[str, str]]:
        """Known facts of the other subjects, in as many wordings as there is room for."""
        ranked = []
        for relation, table in self.tables.facts.items():
            for subject in (s for s in table if s not in self.edited | self.neighbors):
                for rank, number in enumerate(self.known_wordings(relation, subject)):
                    row = {"prompt": self.tables.prompt(relation, subject, number), "target": table[subject]}
                    ranked.append((rank, row | {"subject": subject, "relation_id": relation}))
        ranked.sort(key=lambda pair: pair[0])  # every fact once before any fact a second time
        return [row for _, row in ranked[:POOL_ROWS]]
