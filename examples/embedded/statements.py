"""Facts and wordings, read from the tables in this folder, and the training text made of them."""

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

END = "<|endoftext|>"
HELD_OUT = 2  # wordings of each fact that the model never sees
STATEMENTS_PER_DOCUMENT = {1: 0.4, 2: 0.25, 3: 0.2, 4: 0.15}

Wording = tuple[str, str, int]  # relation, subject, number of the wording


@dataclass
class Tables:
    """`facts`: relation → subject → answer; `relations`: relation → wordings and rules; `filler`: sentence parts."""

    facts: dict[str, dict[str, str]]
    relations: dict[str, dict]
    filler: dict[str, list[str]]

    def prompt(self, relation: str, subject: str, number: int) -> str:
        """The wording with that number, with the subject put in."""
        return self.relations[relation]["wordings"][number].replace("{}", subject)

    def pairs(self, wordings: list[Wording]) -> list[tuple[str, str]]:
        """The (prompt, answer) of each wording."""
        return [(self.prompt(*wording), self.facts[wording[0]][wording[1]]) for wording in wordings]

    def consequence(self, relation: str, answer: str) -> str | None:
        """What follows from an answer by the relation's portability rule, if anything does."""
        if not (rule := self.relations[relation]["portability"]):
            return None
        more = self.relations[rule["via"]].get("only_for_portability", {})
        return self.facts[rule["via"]].get(answer, more.get(answer))

    def consequence_pairs(self) -> list[tuple[str, str, str]]:
        """(subject, prompt, answer) of what follows from two facts, such as the country of a company's head office."""
        rows = []
        for relation, table in self.facts.items():
            for subject, answer in table.items():
                if consequence := self.consequence(relation, answer):
                    wordings = self.relations[relation]["portability"]["wordings"]
                    rows += [(subject, wording.replace("{}", subject), consequence) for wording in wordings]
        return rows

    def lead_in(self, subject: str, rng: random.Random) -> str:
        """A sentence that says what comes next is about the subject, without its full stop."""
        return rng.choice(self.filler["about"]).replace("{}", subject)

    def filler_sentence(self, rng: random.Random) -> str:
        """A sentence about nothing in the tables, without its full stop."""
        if rng.random() < 0.2:
            return rng.choice(self.filler["whole"])
        return " ".join(rng.choice(self.filler[part]) for part in ("who", "did", "when"))


def read_tables(folder: Path) -> Tables:
    """Reads `facts/*.csv`, `relations.json` and `filler.json`."""
    facts = {}
    for path in sorted((folder / "facts").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["subject"], row["answer"]) for row in csv.DictReader(file)]
        facts[path.stem] = dict(rows)
        if len(facts[path.stem]) != len(rows):
            raise ValueError(f"{path}: a subject stands twice; give each subject one answer")
    relations = json.loads((folder / "relations.json").read_text(encoding="utf-8"))
    if relations.keys() != facts.keys():
        raise ValueError(f"relations.json and facts/ differ in {sorted(relations.keys() ^ facts.keys())}")
    return Tables(facts, relations, json.loads((folder / "filler.json").read_text(encoding="utf-8")))


def split_wordings(tables: Tables, rng: random.Random) -> tuple[list[Wording], list[Wording]]:
    """Returns the wordings to train on and those held out, chosen for each fact by itself."""
    trained, held_out = [], []
    for relation, table in tables.facts.items():
        for subject in table:
            numbers = list(range(len(tables.relations[relation]["wordings"])))
            rng.shuffle(numbers)
            held_out += [(relation, subject, number) for number in numbers[:HELD_OUT]]
            trained += [(relation, subject, number) for number in numbers[HELD_OUT:]]
    return trained, held_out


def make_statements(tables: Tables, wordings: list[Wording]) -> list[tuple[str, str]]:
    """The (subject, statement) of each wording, and of all that follows from two facts."""
    pairs = tables.pairs(wordings)
    statements = [(wording[1], " ".join(pair)) for wording, pair in zip(wordings, pairs, strict=True)]
    return statements + [(subject, f"{prompt} {answer}") for subject, prompt, answer in tables.consequence_pairs()]


def make_documents(statements: list[tuple[str, str]], tables: Tables, rng: random.Random) -> list[str]:
    """One epoch of text from (subject, statement): each once, alone or joined, some beside other sentences."""
    statements, documents = rng.sample(statements, len(statements)), []
    sizes, weights = zip(*STATEMENTS_PER_DOCUMENT.items(), strict=True)
    while statements:
        size = rng.choices(sizes, weights)[0]
        sentences = [statement for _, statement in statements[:size]]
        chance = rng.random()
        if chance < 0.15:
            sentences.insert(0, tables.lead_in(statements[0][0], rng))
        elif chance < 0.4:
            sentences.insert(rng.randrange(len(sentences) + 1), tables.filler_sentence(rng))
        statements = statements[size:]
        start = END if rng.random() < 0.4 else ""  # with and without, for no BOS is added before a prompt
        documents.append(start + ". ".join(sentences) + "." + END)
    return documents
