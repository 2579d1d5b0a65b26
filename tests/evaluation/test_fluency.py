import re
import sys
from math import log, log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_ftedit.errors import EditError
from hf_ftedit.evaluation.fluency import consistency, ngram_entropy

WORDS = st.lists(st.sampled_from(["a", "b", "Ab", "città", "京", ",", "."]), min_size=3, max_size=40)
TEXTS = st.lists(st.lists(st.sampled_from(["red", "Blue", "élan", "x", "!"]), max_size=6).map(" ".join), max_size=3)


def entropy(words, n):
    """By definition, counting each n-gram by comparing it with all others."""
    ngrams = [words[i : i + n] for i in range(len(words) - n + 1)]
    total = 0.0
    for i, ngram in enumerate(ngrams):
        if ngram not in ngrams[:i]:
            share = sum(other == ngram for other in ngrams) / len(ngrams)
            total -= share * log(share) / log(2)
    return total


def mean_entropy(words):
    """As ROME's code has it: the mean of two weighted entropies."""
    return np.mean(np.array([2 / 3, 4 / 3]) * np.array([entropy(words, 2), entropy(words, 3)]))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("no no no no no no", 0),
        ("one two three", (2 / 3 * log2(2) + 4 / 3 * log2(1)) / 2),
        ("one two three four five", (2 / 3 * log2(4) + 4 / 3 * log2(3)) / 2),
        ("to be, to be!", (2 / 3 * 1.9219280948873623 + 4 / 3 * 2) / 2),  # "to be" is 2 of 5 bigrams; 4 trigrams
        ("a b a b a", (2 / 3 * 1 + 4 / 3 * 0.9182958340544896) / 2),  # ab 2, ba 2; aba 2, bab 1
        ("The the The the", (2 / 3 * 0.9182958340544896 + 4 / 3 * 1) / 2),  # case counts: bigrams 2 and 1
        ("wait...", (2 / 3 * 0.9182958340544896 + 4 / 3 * 1) / 2),  # each mark is a word: "wait." 1, ".." 2
        ("Il città\n è\tbella", (2 / 3 * log2(3) + 4 / 3 * log2(2)) / 2),
        # Each letter is a word: 3, 2, 1 and 1 of the bigrams are alike, 2, 2, 1 and 1 of the trigrams.
        ("東京 東京 東京 大阪", (2 / 3 * 1.8423709931771084 + 4 / 3 * 1.9182958340544896) / 2),
    ],
)
def test_entropy_by_hand(text, expected):
    assert ngram_entropy(text) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("text", ["", " \n", "one", "one two", "東京", "!?", "one."])
def test_entropy_of_fewer_than_three_words_is_undefined(text):
    assert ngram_entropy(text) is None


@given(WORDS)
def test_entropy_agrees_with_its_definition(words):
    assert ngram_entropy(" ".join(words)) == pytest.approx(mean_entropy(words), abs=1e-12)


def words_of(text):
    """What scikit-learn takes for words: two letters or digits and more, in lower case."""
    return [word for word in re.findall(r"\w+", text.lower()) if len(word) > 1]


def cosines(generated, references):
    """By definition, record by record, on dense vectors: smooth IDF, Euclidean length."""
    texts = {text for record in references for text in record}
    vocabulary = sorted({word for text in texts for word in words_of(text)})
    idf = np.array([log((1 + len(texts)) / (1 + sum(w in words_of(t) for t in texts))) + 1 for w in vocabulary])
    values = []
    for written, wanted in zip(generated, references, strict=True):
        counts = [[words_of(" ".join(part)).count(word) for word in vocabulary] for part in (written, wanted)]
        first, second = np.array(counts).reshape(2, -1) * idf
        length = np.linalg.norm(first) * np.linalg.norm(second)
        undefined = not any(text.strip() for text in written) or not second.any()
        values.append(None if undefined else first @ second / length if length else 0.0)
    return values


def test_consistency_by_hand():
    # Two texts: "plays" is in both, IDF ln(3/3) + 1 = 1; all other words in one, IDF a = ln(3/2) + 1.
    references = [["Ana plays piano"], ["Bo plays chess"]]
    a = log(3 / 2) + 1
    # Known words of the generated texts: piano twice and plays once, against ana, plays and piano.
    expected = (1 + 2 * a * a) / (sqrt(1 + 4 * a * a) * sqrt(1 + 2 * a * a))
    values = consistency([["Piano! She", "plays a PIANO"], ["Ana plays"]], references)
    assert values == pytest.approx([expected, 1 / (sqrt(1 + a * a) * sqrt(1 + 2 * a * a))], abs=1e-12)


def test_consistency_is_one_for_the_same_texts_and_zero_for_no_common_word():
    references = [["Rome is old", "Rome is large"], ["Lemurs climb"]]
    assert consistency(references, references) == pytest.approx([1, 1], abs=1e-12)
    assert consistency(references[::-1], references) == consistency([["!!!! xyzzy"]] * 2, references) == [0, 0]


def test_rounding_takes_no_value_above_one():
    references = [[" ".join(f"word{i}" for i in range(1, count))] for count in range(2, 60)]
    values = consistency(references, references)
    assert values == pytest.approx([1] * len(values), abs=1e-12)
    assert max(values) <= 1


@pytest.mark.parametrize(
    "generated, references",
    [
        (["Rome is old"], []),
        ([], ["Rome is old"]),
        ([""], ["Rome is old"]),
        (["Rome is old"], ["!", "a b"]),  # single letters are no words
    ],
)
def test_consistency_is_undefined_where_a_vector_is_zero(generated, references):
    values = consistency([["the lemurs"], generated, ["the cat"]], [["the lemurs"], references, ["the lemurs"]])
    assert values[1] is None
    assert values[0] == pytest.approx(1, abs=1e-12)
    assert 0 < values[2] < 1


def test_consistency_without_any_word_to_compare_is_undefined():
    assert consistency([], []) == []
    assert consistency([["Rome"], ["Oslo"]], [[], []]) == [None, None]
    assert consistency([["Rome"], ["Oslo"]], [["!", "a"], [""]]) == [None, None]


def test_reference_texts_that_recur_are_counted_once():
    generated = [["red cars"], ["red boats"], ["blue cars"]]
    shared = ["red paint", "fast cars"]
    values = consistency(generated, [shared, ["blue boats"], shared])
    assert values == pytest.approx(consistency(generated, [shared * 3, ["blue boats"], shared]), abs=1e-12)
    assert values == pytest.approx(cosines(generated, [shared, ["blue boats"], shared]), abs=1e-12)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_consistency_agrees_with_its_definition(records):
    generated, references = [first for first, _ in records], [second for _, second in records]
    values = consistency(generated, references)
    assert values == [
        None if value is None else pytest.approx(value, abs=1e-12) for value in cosines(generated, references)
    ]
    assert all(value is None or 0 <= value <= 1 for value in values)


def test_lists_of_different_lengths_are_an_error():
    with pytest.raises(EditError, match="2 generated and 1 reference texts"):
        consistency([["a"], ["b"]], [["a"]])


def test_the_missing_extra_is_named(monkeypatch):
    for name in ("sklearn", "sklearn.feature_extraction", "sklearn.feature_extraction.text"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EditError, match=r"consistency needs scikit-learn; .* pip install 'hf-ftedit\[consistency\]'$"):
        consistency([["a"]], [["a"]])
    assert ngram_entropy("it does without") is not None
