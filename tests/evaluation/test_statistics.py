import itertools

import numpy as np
import pytest

from hf_ftedit.evaluation import statistics as resampling
from hf_ftedit.evaluation.statistics import bootstrap, interval, means, permutation_test

NAN = np.nan


def and_product(drawn):
    """The means, and what is no mean: their product."""
    return np.column_stack([drawn, drawn.prod(axis=1)])


def edits(count, seed=0):
    """Two scores of some edits, the second of which every third edit lacks."""
    values = np.random.default_rng(seed).random((count, 2))
    values[::3, 1] = NAN
    return values


def slow_bootstrap(values, n, seed):
    rng = np.random.default_rng(seed)
    found = [np.nanmean(values[rng.integers(len(values), size=len(values))], axis=0) for _ in range(n)]
    return and_product(np.array(found))


def exact_p_values(before, after):
    """Over all ways to exchange before and after of each edit."""
    observed = np.abs(and_product(np.nanmean([after], axis=1)) - and_product(np.nanmean([before], axis=1)))[0]
    exceeded = np.zeros(len(observed))
    for flips in itertools.product([False, True], repeat=len(before)):
        flipped = np.array(flips)[:, None]
        lower, upper = np.where(flipped, after, before), np.where(flipped, before, after)
        change = np.abs(and_product(np.nanmean([upper], axis=1)) - and_product(np.nanmean([lower], axis=1)))[0]
        exceeded += change >= observed - 1e-9
    return exceeded / 2 ** len(before)


def test_means_by_hand():
    values = np.array([[1.0, 0.5, NAN], [0.0, NAN, NAN], [0.5, 0.0, NAN]])
    assert means(values) == pytest.approx([0.5, 0.25, NAN], nan_ok=True)


def test_weighted_means_by_hand(recwarn):
    values = np.array([[1.0, 0.5], [0.0, NAN], [0.5, 0.0]])
    found = means(values, np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 2.0]]))
    assert found == pytest.approx(np.array([[0.5, 0.25], [1, 0.5], [0, NAN], [2 / 3, 1 / 6]]), nan_ok=True)
    assert not recwarn.list


def test_the_bootstrap_is_that_of_a_slow_loop():
    values = edits(24)
    slow, fast = slow_bootstrap(values, 20_000, seed=1), bootstrap(values, and_product, 20_000, seed=2)
    assert fast.shape == (20_000, 3)
    assert fast.mean(axis=0) == pytest.approx(slow.mean(axis=0), abs=0.004)
    for part in (2.5, 25, 50, 75, 97.5):
        assert np.percentile(fast, part, axis=0) == pytest.approx(np.percentile(slow, part, axis=0), abs=0.008)


def test_the_bootstrap_is_seeded():
    values = edits(24)
    first, again, other = (bootstrap(values, and_product, 50, seed) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_scores_that_are_drawn_with_one_seed_are_drawn_together():
    values = edits(24)
    before, after = (bootstrap(part, and_product, 200, seed=5) for part in (values, values + 1))
    assert after[:, :2] - before[:, :2] == pytest.approx(1.0)


@pytest.mark.parametrize("block", [1, 24, 100])  # less than one resample, just one, and four
def test_blocks_change_neither_shape_nor_distribution(monkeypatch, block):
    values = edits(24)
    whole = bootstrap(values, and_product, 5001, seed=0)
    monkeypatch.setattr(resampling, "BLOCK", block)
    parts = bootstrap(values, and_product, 5001, seed=0)
    assert parts.shape == whole.shape == (5001, 3)
    assert parts.mean(axis=0) == pytest.approx(whole.mean(axis=0), abs=0.006)
    assert interval(parts) == pytest.approx(np.array(interval(whole)), abs=0.015)
    p_value = permutation_test(values, edits(24, seed=1), and_product, 5001, seed=0)
    monkeypatch.undo()
    assert p_value == pytest.approx(permutation_test(values, edits(24, seed=1), and_product, 5001, seed=0), abs=0.03)


def test_a_resample_without_a_score_says_nothing_about_it(recwarn):
    found = bootstrap(np.array([[1.0, 0.25], [0.0, NAN]]), lambda drawn: drawn, 400, seed=0)
    assert np.isnan(found[:, 1]).mean() == pytest.approx(1 / 4, abs=0.08)  # both draws are the second edit
    assert interval(found) == [[0.0, 1.0], [0.25, 0.25]]
    assert not recwarn.list


def test_interval_by_hand():
    resampled = np.array([[float(place), 7.0, NAN, NAN] for place in range(201)])
    resampled[:101, 2] = np.arange(101)
    assert interval(resampled) == [[5.0, 195.0], [7.0, 7.0], [2.5, 97.5], None]


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.4])
def test_p_values_are_those_of_all_exchanges(shift):
    before, after = edits(10), edits(10, seed=1) + shift
    exact = exact_p_values(before, after)
    found = permutation_test(before, after, and_product, 20_000, seed=0)
    assert (np.abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4).all()


def test_a_score_that_no_edit_has_is_no_reason_to_stop(recwarn):
    before, after = np.array([[0.0, NAN]] * 12), np.array([[1.0, NAN]] * 12)
    assert permutation_test(before, after, lambda drawn: drawn, 999, seed=0)[0] < 0.01
    assert not recwarn.list


def test_an_exchange_of_equal_values_within_rounding_counts_as_equal():
    rates = np.random.default_rng(0).integers(0, 8, size=(40, 1)) / 7
    assert permutation_test(rates, rates[::-1], lambda drawn: drawn, 500, seed=0) == [1.0]
