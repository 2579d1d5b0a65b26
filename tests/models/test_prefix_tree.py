import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_ftedit.models.prefix_tree import token_trees
from hf_ftedit.models.tokenization import EncodedPair

SMALL_TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=12)  # few tokens, so that much is shared
PAIRS = st.lists(SMALL_TOKENS.flatmap(lambda ids: st.builds(EncodedPair, st.just(ids), st.integers(1, len(ids) - 1))))
DOUBLED = [EncodedPair([0, 1, 2], 1)] * 2 + [EncodedPair([0, 1], 1)]  # a pair twice, and one within it


def read_back(trees):
    """What each pair's tokens are predicted from, as the mask shows it: {pair: [(tokens before, token), ...]}."""
    found = {}
    for tree in trees:
        mask = tree.attention_mask(len(tree.tokens))
        tokens, positions = np.array(tree.tokens), np.array(tree.positions)
        for node, token, pair in tree.targets:
            seen = np.flatnonzero(mask[node])
            seen = seen[np.argsort(positions[seen])]
            assert positions[seen].tolist() == list(range(len(seen)))
            found.setdefault(pair, []).append((tokens[seen].tolist(), token))
    return found


def predictions(pairs):
    """What each pair's tokens should be predicted from."""
    return {
        number: [(ids[:place], ids[place]) for place in range(start, len(ids))]
        for number, (ids, start) in enumerate(pairs)
    }


def trie_size(pairs):
    """How many beginnings the pairs have without their last tokens."""
    return len({tuple(ids[:end]) for ids, _ in pairs for end in range(1, len(ids))})


def sizes(pairs, width):
    return [len(tree.tokens) for tree in token_trees(pairs, width)]


def test_a_tree_by_hand():
    pairs = [
        EncodedPair([7, 8], 1),
        EncodedPair([1, 2, 5, 6, 9], 4),
        EncodedPair([1, 2, 3, 4, 9], 3),
        EncodedPair([1, 2, 5, 7, 0], 4),
    ]
    [tree] = token_trees(pairs)
    assert tree.tokens == [1, 2, 3, 4, 5, 6, 7, 7]
    assert tree.positions == [0, 1, 2, 3, 2, 3, 3, 0]
    assert [tuple(target) for target in tree.targets] == [(2, 4, 2), (3, 9, 2), (5, 9, 1), (6, 0, 3), (7, 8, 0)]
    assert tree.attention_mask(9).astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1],  # what fills up
    ]


@given(PAIRS, st.integers(1, 20))
@example(DOUBLED, 20)
def test_every_pair_can_be_read_back_through_the_mask(pairs, width):
    trees = token_trees(pairs, width)
    assert read_back(trees) == predictions(pairs)
    tokens = [len(tree.tokens) for tree in trees]
    assert tokens == sorted(tokens, reverse=True)
    assert trie_size(pairs) <= sum(tokens) <= sum(len(ids) - 1 for ids, _ in pairs)


@given(PAIRS)
@example([])
@example(DOUBLED)
def test_what_fits_into_one_tree_is_there_once(pairs):
    trees = token_trees(pairs, width=1000)
    assert len(trees) == bool(pairs)
    assert sum(len(tree.tokens) for tree in trees) == trie_size(pairs)


@given(PAIRS, st.integers(1, 20))
def test_the_order_of_the_pairs_does_not_matter(pairs, width):
    assert sizes(pairs[::-1], width) == sizes(pairs, width)


def test_trees_keep_to_their_width():
    pairs = [EncodedPair([first, 0, 0, 0], 2) for first in range(1, 8)]  # three tokens each
    assert sizes(pairs, width=6) == [6, 6, 6, 3]
    assert sizes(pairs, width=7) == [6, 6, 6, 3]
    assert sizes(pairs, width=2) == [3] * 7


def test_what_all_pairs_begin_with_is_added_to_the_width():
    pairs = [EncodedPair([8, 8, first, 0, 0, 0], 4) for first in range(1, 8)]
    assert sizes(pairs, width=6) == [2 + 6, 2 + 6, 2 + 6, 2 + 3]
    assert sizes([*pairs, EncodedPair([9] * 6, 1)], width=6) == [2 + 3] * 7 + [5]  # not all begin with it


def test_a_sequence_that_shares_more_than_it_adds_stays_up_to_four_widths():
    pairs = [EncodedPair([1, 2, 3, leaf, 0], 4) for leaf in range(10, 30)] + [EncodedPair([9, 9], 1)]
    assert sizes(pairs, width=4) == [3 + 13, 3 + 7, 1]


@pytest.mark.parametrize("length", [10, 15, 25, 100])
def test_a_longer_prompt_is_a_tree_with_all_of_its_targets(length):
    long = [EncodedPair([5] * length + [target, 0], length) for target in (6, 7, 8)]
    short = [EncodedPair([1, 2], 1), EncodedPair([9, 2], 1)]
    trees = token_trees(short + long + long[:1], width=4)
    assert [len(tree.tokens) for tree in trees] == [length + 3, 1, 1]
    assert [len(tree.targets) for tree in trees] == [8, 1, 1]
