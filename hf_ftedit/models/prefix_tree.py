"""Prompts with their targets to token trees: what several sequences begin with stands, and is computed, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hf_ftedit.models.tokenization import EncodedPair

WIDTH = 96  # tokens of a tree: more share more, but each attends to all of them


class Read(NamedTuple):
    """A target token of a pair, and the position of the token in the tree from which it is predicted."""

    node: int
    token: int
    pair: int


class _Branch(NamedTuple):
    """New tokens from position `first` up to `end`, behind the tokens at the positions `before`."""

    before: list[int]
    first: int
    end: int


@dataclass
class TokenTree:
    """
    Token sequences in one: each token sees those before it in its own sequence, wherever they stand.

    Args:
        tokens (`list[int]`):
            Each beginning that sequences share stands once.
        positions (`list[int]`):
            Place of each token in its own sequence, from 0.
        reads (`list[Read]`):
            What is to be predicted.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    _branches: list[_Branch] = field(default_factory=list)

    def grow(self, before: list[int], tokens: Sequence[int]) -> list[int]:
        """Put `tokens` behind those at the positions `before`; the positions of the whole sequence."""
        if not tokens:
            return before
        first = len(self.tokens)
        self._branches.append(_Branch(before, first, first + len(tokens)))
        self.tokens += tokens
        self.positions += range(len(before), len(before) + len(tokens))
        return before + list(range(first, len(self.tokens)))

    def visible(self, size: int) -> np.ndarray:
        """Which token sees which, shape `(size, size)`; what fills up to `size` sees itself."""
        seen, below = np.eye(size, dtype=bool), np.tri(size, dtype=bool)
        for before, first, end in self._branches:
            seen[first:end, before] = True
            seen[first:end, first:end] = below[: end - first, : end - first]
        return seen


def pack(pairs: Sequence[EncodedPair], width: int = WIDTH) -> list[TokenTree]:
    """
    Pairs as trees of about `width` tokens, the largest first; a longer prompt is a tree with all of its targets.

    The last token of a pair is only ever predicted, so it is not in the tree.

    Args:
        pairs (`Sequence[EncodedPair]`):
            Prompts with their targets.
        width (`int`, *optional*, defaults to `96`):
            Tokens of a tree beyond what all pairs begin with, such as a chat template's.
    """
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].input_ids)
    front = _shared(pairs[order[0]].input_ids[:-1], pairs[order[-1]].input_ids[:-1]) if order else 0
    trees: list[TokenTree] = []
    last: list[int] = []
    nodes: list[int] = []
    for index in order:
        ids = pairs[index].input_ids[:-1]
        common = _shared(last, ids)
        if not trees or _is_full(trees[-1], common - front, len(ids) - common, front + width):
            trees.append(TokenTree())
            common = 0
        nodes = trees[-1].grow(nodes[:common], ids[common:])
        targets = enumerate(pairs[index].input_ids[pairs[index].start :], pairs[index].start)
        trees[-1].reads += [Read(nodes[position - 1], token, index) for position, token in targets]
        last = ids
    return sorted(trees, key=lambda tree: len(tree.tokens), reverse=True)


def _is_full(tree: TokenTree, common: int, new: int, width: int) -> bool:
    """Whether a sequence should begin another tree; one that shares more than it adds may stay for longer."""
    size = len(tree.tokens) + new
    return size > width and (new >= common or size > max(4 * width, 2 * (common + new)))


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
