import sys

import numpy as np
import pytest
import torch
from tiny import bpe_tokenizer

from hf_ftedit.augmentation.augmenter import Augmenter
from hf_ftedit.augmentation.locality_pool import nearest
from hf_ftedit.data.records import EditRecord, Fact
from hf_ftedit.errors import EditError
from hf_ftedit.models.loading import load_model, load_tokenizer
from hf_ftedit.options import AugmentationOptions

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
