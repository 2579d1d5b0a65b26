import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_ftedit.predictions import COLUMNS
from hf_ftedit.records import EditError
from hf_ftedit.scoring import harmonic_mean, score

OTHER = {"new": "true", "true": "new"}


def probe(edit_id, kind, prompt, ours, other=None, accuracy=1.0):
    """The rows of one probe: its expected target's log-probability, and the other's where there is one."""
    expected = "true" if kind == "neighborhood" else "new"
    shared = {"edit_id": edit_id, "kind": kind, "probe": prompt}
    rows = [shared | {"target": expected, "logprob": ours, "match": accuracy == 1.0, "token_accuracy": accuracy}]
    if other is not None:
        rows.append(shared | {"target": OTHER[expected], "logprob": other, "match": False, "token_accuracy": 0.0})
    return rows


def two_edits():
    """
    By hand, probability: efficacy (1 + 0) / 2; generalization (1/2 + 1) / 2; locality (2/3 + 1) / 2.

    Accuracy: efficacy (1 + 0.5) / 2; generalization (0.75 + 1) / 2; locality (2/3 + 0) / 2.
    """
    return [
        *probe("a", "rewrite", "p", -0.1, -2.0),
        *probe("a", "paraphrase", "q", -0.1, -2.0, accuracy=0.5),
        *probe("a", "paraphrase", "r", -3.0, -2.0),
        *probe("a", "neighborhood", "s", -0.1, -2.0),
        *probe("a", "neighborhood", "t", -0.1, -2.0, accuracy=0.0),
        *probe("a", "neighborhood", "u", -5.0, -2.0),
        *probe("b", "rewrite", "v", -1.0, -1.0, accuracy=0.5),  # a tie is no success
        *probe("b", "paraphrase", "w", -0.5, -0.6),
        *probe("b", "neighborhood", "x", -0.5, -math.inf, accuracy=0.0),
    ]


def test_both_protocols_by_hand():
    result = score(two_edits())
    assert result["protocol"] == "probability"
    expected = {"efficacy": 50.0, "generalization": 75.0, "locality": 250 / 3}
    assert {name: result[name] for name in expected} == pytest.approx(expected)
    assert result["edit_score"] == pytest.approx(3 / (1 / 50 + 1 / 75 + 3 / 250))
    accuracy = {"efficacy": 75.0, "generalization": 87.5, "locality": 100 / 3}
    assert {name: result["accuracy"][name] for name in accuracy} == pytest.approx(accuracy)
    assert result["n_edits"] == 2
    assert result["n_probes"] == {"rewrite": 2, "paraphrase": 3, "neighborhood": 4, "portability": 0}


@pytest.mark.parametrize("protocol", ["probability", "accuracy"])
def test_a_protocol_can_be_asked_for(protocol):
    result = score(two_edits(), protocol)
    assert result["protocol"] == protocol
    assert result["edit_score"] == result[protocol]["edit_score"]


def test_one_probe_without_its_other_target_makes_it_the_accuracy_protocol():
    rows = two_edits() + probe("b", "neighborhood", "y", -0.1)
    result = score(rows)
    assert result["protocol"] == "accuracy"
    assert result["probability"]["locality"] == pytest.approx(250 / 3)  # over the probes that have both


def test_portability_is_by_accuracy_and_does_not_decide_the_protocol():
    result = score(two_edits() + probe("a", "portability", "z", -9.0, accuracy=0.25))
    assert result["protocol"] == "probability"
    assert result["portability"] == 25.0
    assert result["n_probes"]["portability"] == 1


def test_an_undefined_score_is_none_and_says_why():
    result = score(probe("a", "rewrite", "p", -0.1, -2.0))
    assert result["efficacy"] == 100.0
    assert result["generalization"] is None and result["locality_ci95"] is None and result["edit_score"] is None
    assert result["edit_score_note"] == (
        "no paraphrase probe: generalization is undefined; no neighborhood probe: locality is undefined"
    )


def test_generation_rows_are_not_scored():
    rows = two_edits() + probe("a", "generation", "g", -0.1)
    assert score(rows)["edit_score"] == score(two_edits())["edit_score"]


@pytest.mark.parametrize("column", ["logprob", "token_accuracy"])
def test_nan_is_an_error_that_names_the_probe(column):
    rows = two_edits()
    rows[4][column] = math.nan
    with pytest.raises(EditError, match=f"edit 'a', paraphrase probe 'r': {column} is not a number"):
        score(rows)


def test_a_probe_that_stands_twice_counts_once_and_must_agree():
    rows = two_edits()
    assert score([*rows, rows[0]]) == score(rows)
    with pytest.raises(EditError, match="edit 'a', rewrite probe 'p'.*two different predictions"):
        score([*rows, rows[0] | {"logprob": -7.0}])


def test_a_missing_column_and_no_rows_are_errors():
    with pytest.raises(EditError, match="token_accuracy"):
        score([{name: value for name, value in row.items() if name != "token_accuracy"} for row in two_edits()])
    with pytest.raises(EditError, match="no predictions"):
        score([])


def test_rows_columns_and_their_order_do_not_matter():
    rows = two_edits()
    shuffled = random.Random(0).sample(rows, len(rows))
    columns = {name: [row[name] for row in shuffled] for name in COLUMNS}
    assert score(shuffled) == score(rows) == score(columns)


def test_the_result_is_json():
    result = score(two_edits())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_intervals_are_those_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    rates = rng.random(60)
    rows = []
    for index, rate in enumerate(rates):
        for number in range(4):
            success = -0.1 if number < round(4 * rate) else -9.0
            rows += probe(f"{index}", "rewrite", f"p{index}.{number}", success, -1.0)
    means = np.array([round(4 * rate) / 4 for rate in rates])
    slow = [rng.choice(means, size=60).mean() * 100 for _ in range(20_000)]
    result = score(rows, n_resamples=20_000)
    assert result["efficacy"] == pytest.approx(100 * means.mean())
    assert result["efficacy_ci95"] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.9)  # the grid is 0.42 wide


def test_the_interval_of_one_edit_and_of_all_successes_is_a_point():
    rows = probe("a", "rewrite", "p", -0.1, -2.0) + probe("a", "paraphrase", "q", -3.0, -2.0)
    assert score(rows)["generalization_ci95"] == [0.0, 0.0]
    assert score(rows)["efficacy_ci95"] == [100.0, 100.0]


def test_an_edit_score_of_zero_has_an_interval_without_a_warning(recwarn):
    rows = two_edits() + probe("b", "paraphrase", "never", -9.0, -0.1)
    rows = [row | {"logprob": -99.0} if row["kind"] == "rewrite" and row["target"] == "new" else row for row in rows]
    result = score(rows)
    assert result["edit_score"] == 0.0 and result["edit_score_ci95"] == [0.0, 0.0]
    assert not recwarn.list


def test_harmonic_mean():
    assert harmonic_mean([100.0, 50.0]) == pytest.approx(200 / 3)
    assert harmonic_mean([100.0, 0.0]) == 0.0
    assert harmonic_mean([100.0, None]) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_accuracy_is_the_mean_of_the_records_means(probes):
    rows, by_record = [], {}
    for number, (record, success, accuracy) in enumerate(probes):
        rows += probe(str(record), "rewrite", f"p{number}", -0.1 if success else -5.0, -1.0, accuracy)
        by_record.setdefault(record, []).append((float(success), accuracy))
    means = np.mean([np.mean(values, axis=0) for values in by_record.values()], axis=0)
    result = score(rows, n_resamples=10)
    assert result["probability"]["efficacy"] == pytest.approx(100 * means[0])
    assert result["accuracy"]["efficacy"] == pytest.approx(100 * means[1])
