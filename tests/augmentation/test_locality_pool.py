import random
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from tiny import bpe_tokenizer

from hf_ftedit.augmentation.augmenter import Augmenter
from hf_ftedit.augmentation.locality_pool import FactPool, draws, nearest
from hf_ftedit.data.records import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models.loading import load_model, load_tokenizer
from hf_ftedit.options import AugmentationOptions

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


TEXTS = ["The capital of Peru is", "The anthem of Chad is", "Somebody sings about rain", "The capital of Chad is"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence-transformers model that averages random token vectors, saved in a folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(bpe_tokenizer().backend_tokenizer, embedding_dim=32)])
    folder = str(tmp_path_factory.mktemp("encoder"))
    model.save(folder)
    return model, folder


def test_nearest_are_those_of_largest_cosine(encoder):
    model, folder = encoder
    queries = ["The capital of Mali is", "Somebody sings"]
    wanted, known = (model.encode(part) for part in (queries, TEXTS))
    cosine = (wanted @ known.T) / np.outer(np.linalg.norm(wanted, axis=1), np.linalg.norm(known, axis=1))
    assert nearest(queries, TEXTS, 3, folder) == np.argsort(-cosine, axis=1)[:, :3].tolist()
    assert len(nearest(queries, TEXTS, 9, folder)[0]) == len(TEXTS)


def test_similar_facts_are_rehearsed_first(encoder):
    options = AugmentationOptions(locality_strategy="similar", num_locality=2, similar_model=encoder[1])
    record = EditRecord("a", "The capital of Mali is", "Oslo")
    pool = [Fact(text, "x") for text in TEXTS]
    rows = list(Augmenter([record], options, pool=pool, model=load_model(None), tokenizer=load_tokenizer(None)).rows())
    chosen = [row["prompt"] for row in rows if row["kind"] == "locality"]
    assert chosen == [TEXTS[index] for index in nearest([record.prompt], TEXTS, 2, encoder[1])[0]]


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(EditError, match="similar_model .* cannot be loaded"):
        nearest(["a"], ["b"], 1, str(tmp_path / "missing"))


def test_a_model_that_fails_without_a_word_is_an_error(monkeypatch):
    def fail(name):
        raise OSError

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", fail)
    with pytest.raises(EditError, match="^similar_model 'any' cannot be loaded: OSError$"):
        nearest(["a"], ["b"], 1, "any")


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EditError, match=r"pip install 'hf-ftedit\[similar\]'"):
        nearest(["a"], ["b"], 1, "any")
