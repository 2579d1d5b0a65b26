"""Token trees: several sequences in one, in which a beginning that they share stands, and is computed, once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import NamedTuple

import numpy as np

from hf_ftedit.models.tokenization import EncodedPair

# Tokens of a tree. In wider ones more beginnings are shared, but every token attends to (masked) all of them.
WIDTH = 96


class TargetToken(NamedTuple):
    """A token to be predicted."""

    node: int  # position in the tree of the token from which it is predicted
    token: int
    pair: int  # index of the pair whose target it is part of


@dataclass
class TokenTree:
    """Token sequences in one: each token attends to those before it in its own sequence, wherever they stand."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # place of each token in its own sequence, from 0
    targets: list[TargetToken] = field(default_factory=list)
    # Positions `before` new tokens, and where these begin and end.
    _branches: list[tuple[list[int], int, int]] = field(default_factory=list)

    def grow(self, before: list[int], tokens: Sequence[int]) -> list[int]:
        """Put `tokens` behind those at the positions `before`; the positions of the whole sequence."""
        if not tokens:
            return before
        first = len(self.tokens)
        self._branches.append((before, first, first + len(tokens)))
        self.tokens += tokens
        self.positions += range(len(before), len(before) + len(tokens))
        return before + list(range(first, len(self.tokens)))

    def attention_mask(self, size: int) -> np.ndarray:
        """Boolean mask of shape `(size, size)`, true where the row's token attends to the column's."""
        # Padding attends to itself: a row without any true entry would be NaN after the softmax.
        mask, causal = np.eye(size, dtype=bool), np.tri(size, dtype=bool)
        for before, first, end in self._branches:
            mask[first:end, before] = True
            mask[first:end, first:end] = causal[: end - first, : end - first]
        return mask


def token_trees(pairs: Sequence[EncodedPair], width: int = WIDTH) -> list[TokenTree]:
    """Merge pairs into trees of about `width` tokens beyond those that all pairs begin with, the largest first."""
    # In the order of their tokens, the neighbors of a pair are those that share the most with it.
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].input_ids)
    front = len(commonprefix([pairs[place].input_ids[:-1] for place in (order[0], order[-1])])) if order else 0
    trees: list[TokenTree] = []
    last: list[int] = []
    nodes: list[int] = []
    for index in order:
        # The last token of a pair is only ever predicted, so it is not in the tree.
        ids, start = pairs[index].input_ids[:-1], pairs[index].start
        common = len(commonprefix([last, ids]))
        if not trees or _is_full(trees[-1], common - front, len(ids) - common, front + width):
            trees.append(TokenTree())
            common = 0
        nodes = trees[-1].grow(nodes[:common], ids[common:])
        targets = enumerate(pairs[index].input_ids[start:], start)
        trees[-1].targets += [TargetToken(nodes[place - 1], token, index) for place, token in targets]
        last = ids
    return sorted(trees, key=lambda tree: len(tree.tokens), reverse=True)


def _is_full(tree: TokenTree, common: int, new: int, width: int) -> bool:
    """Tell whether a sequence that adds `new` tokens to `common` ones should begin another tree."""
    size = len(tree.tokens) + new
    # One that shares more than it adds is worth a wider tree, as in another one its beginning is computed again. But
    # attention grows with the square of the size: up to four widths, or twice a prompt that alone is longer.
    return size > width and (new >= common or size > max(4 * width, 2 * (common + new)))
