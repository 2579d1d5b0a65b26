import random
from collections import Counter

from hf_ftedit.augmentation.locality_pool import FactPool, draws
from hf_ftedit.data.records import EditRecord, Fact

EDIT = EditRecord("a", "The capital of Chad is", "Lima", subject="Chad", target_true="Paris", relation_id="P36")
FACTS = [
    Fact("The capital of France is", "Paris", "France", "P36"),
    Fact("France is governed from", "Paris", "France", "P36"),
    Fact("The capital of Peru is", "Lima", "Peru", "P36"),
    Fact("Peru is governed from", "Lima", "Peru"),  # no id: known by its template
    Fact("Chad is governed from", "Paris", "Chad", "P36"),  # what the edit changes
    Fact("The anthem of Chad is", "x", "Chad", "P85"),
    Fact("Somebody sings", "y"),
]


def test_facts_that_an_edit_changes_or_a_probe_asks_are_left_out_and_counted():
    pool = FactPool([*FACTS, FACTS[0]], lambda text: "anthem" in text, [EDIT])
    assert pool.facts == [*FACTS[:4], FACTS[6]]
    assert pool.left_out == 2


def test_the_edits_own_prompt_is_left_out_even_without_a_subject():
    assert FactPool([Fact(EDIT.prompt, "Paris")], edited=[EDIT]).facts == []


def test_relations_are_found_by_id_and_by_template():
    pool = FactPool(FACTS, edited=[EDIT])
    assert pool.same_relation(EDIT) == FACTS[:4]
    assert pool.same_answer(EDIT) == FACTS[:2]
    bare = EditRecord("b", "The capital of Mali is", "Lima", subject="Mali")  # neither id nor old answer
    assert pool.same_relation(bare) == FACTS[:4] and pool.same_answer(bare) == []
    unknown = EditRecord("c", "Mali sings", "x")
    assert pool.same_relation(unknown) == [] and pool.wordings(unknown) == {}


def test_wordings_are_counted_also_those_of_facts_left_out():
    wordings = FactPool(FACTS, edited=[EDIT]).wordings(EDIT)
    assert wordings == {"The capital of {} is": 3, "{} is governed from": 3}


def test_draws_are_every_item_once_in_an_even_order():
    items = [Fact(str(number), "x") for number in range(5)]
    rng = random.Random(0)
    first = Counter()
    for _ in range(2000):
        drawn = list(draws(items, rng))
        assert sorted(drawn, key=items.index) == items
        first[drawn[0].prompt] += 1
    assert all(330 < count < 470 for count in first.values())  # 400 each, within 4 standard deviations
    assert list(draws([], rng)) == []


def test_a_fact_that_an_edit_changes_is_left_out_however_it_is_spelled():
    edit = EditRecord("0", "The capital of C\u00f4te is", "Rome", subject="C\u00f4te", relation_id="P36")
    facts = [Fact("co\u0302te is governed from", "Man", subject="co\u0302te", relation_id="P36")]
    facts += [Fact("The capital of  Co\u0302te is", "Man"), Fact("Peru is governed from", "Lima", "Peru", "P36")]
    assert [fact.target for fact in FactPool(facts, edited=[edit]).facts] == ["Lima"]
