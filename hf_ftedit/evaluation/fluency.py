"""How generated text reads: its fluency (GE), and its consistency with texts about the new fact (RS), as in ROME."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import log2
from typing import Any

import numpy as np

from hf_ftedit.data import WORD, EditRecord
from hf_ftedit.errors import EditError

LEAST_ENTROPY = 0.8  # of that of as many words with no bigram twice: 99 % of a small chat model's answers have it


def check_fluency(records: Iterable[EditRecord]) -> None:
    """Raise [`~hf_ftedit.EditError`] where fluency and consistency of `records` cannot be measured."""
    records = list(records)
    if not any(record.generation_prompts for record in records):
        raise EditError("fluency cannot be measured: no edit has generation_prompts; give some, or leave it off")
    if any(record.reference_texts for record in records):
        _vectorizer()


def ngram_entropy(text: str) -> float | None:
    """
    Fluency of a text from its prompt on, "GE": the weighted mean of its bigram and trigram entropies, in bits.

    With `H_n = -sum(p * log2(p))` over the shares `p` of the text's different n-grams, it is the mean of `2/3 * H_2`
    and `4/3 * H_3`, that is `(H_2 + 2 * H_3) / 3` (Meng et al. 2022, arXiv 2202.05262, Section 3.3, with the weights
    of their code); tables show 100 times this. It is low where a text repeats: 0 for one word, `(log2(N - 1) + 2 *
    log2(N - 2)) / 3` for `N` words with no bigram twice, `None` for fewer than three words. Words keep their case, and
    a punctuation mark counts as a word; ROME splits with NLTK, which differs at contractions and such. In scripts
    without spaces, letters count as words.

    Example:
        >>> round(ngram_entropy("so it was and so it was"), 2)
        1.92
    """
    words = WORD.findall(text)
    return (_entropy(words, 2) + 2 * _entropy(words, 3)) / 3 if len(words) >= 3 else None


def is_repetitive(text: str) -> bool:
    """
    Tell whether a text goes round in circles: its [`ngram_entropy`] is below [`LEAST_ENTROPY`] of what it could be.

    Example:
        >>> is_repetitive("the mayor of Rome is the mayor of Rome, the mayor of Rome")
        True
    """
    words, entropy = WORD.findall(text), ngram_entropy(text)
    if entropy is None:
        return False
    return entropy < LEAST_ENTROPY * (log2(len(words) - 1) + 2 * log2(len(words) - 2)) / 3


def consistency(generated: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float | None]:
    """
    Consistency of generated texts with reference texts, "RS", by record: the cosine of their TF-IDF vectors, 0 to 1.

    A record's generated texts are joined to one text, its reference texts to another (Meng et al. 2022, arXiv
    2202.05262, Section 3.3, and their code). Words are weighted by scikit-learn's `TfidfVectorizer` as it is by
    default, fitted on the different reference texts of all records, where ROME fits it on those of all of CounterFact:
    values are comparable only between calls with the same references. Words that no reference text holds do not count.
    `None` stands for a record whose reference texts hold no word, or for which nothing was generated.

    Raises:
        [`~hf_ftedit.EditError`]: scikit-learn is not installed, or the two are not of one length.
    """
    vectorizer = _vectorizer()
    if len(generated) != len(references):
        raise EditError(f"{len(generated)} generated and {len(references)} reference texts; give as many")
    texts = list(dict.fromkeys(text for record in references for text in record))
    if not any(map(vectorizer.build_analyzer(), texts)):  # `fit` refuses texts without a word
        return [None] * len(generated)
    vectorizer.fit(texts)
    first, second = (vectorizer.transform(map(" ".join, part)) for part in (generated, references))
    cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()  # rows are of length 1, or zero
    written = np.array([any(text.strip() for text in record) for record in generated], dtype=bool)
    is_defined = written & (second.getnnz(axis=1) > 0)
    return [min(float(value), 1.0) if defined else None for value, defined in zip(cosines, is_defined, strict=True)]


def _entropy(words: Sequence[str], n: int) -> float:
    """Entropy of the n-grams of `words`, in bits; as `log2(1 / p)`, so that it is never below zero by rounding."""
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False)).values()
    total = sum(counts)
    return sum(count * log2(total / count) for count in counts) / total


def _vectorizer() -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        message = "consistency needs scikit-learn; install it with pip install 'hf-ftedit[consistency]'"
        raise EditError(message) from error
    return TfidfVectorizer()
