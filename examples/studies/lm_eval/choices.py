"""The choices of `known_facts_choice.yaml`: a fact's own answer among three others of its relation."""

import random
from collections import defaultdict

import datasets


def with_choices(facts: datasets.Dataset) -> datasets.Dataset:
    """The facts with `choices` and the number of the right one; without those of relations with too few answers."""
    answers = defaultdict(set)
    for fact in facts:
        answers[fact["relation_id"]].add(fact["attribute"])
    draw = random.Random(0)

    def asked(fact: dict) -> dict:
        others = sorted(answers[fact["relation_id"]] - {fact["attribute"]})
        choices = draw.sample([fact["attribute"], *draw.sample(others, 3)], 4)
        return {"choices": choices, "answer": choices.index(fact["attribute"])}

    return facts.filter(lambda fact: len(answers[fact["relation_id"]]) >= 4).map(asked, load_from_cache_file=False)
