"""Published scores against measured ones, without a model."""

from pathlib import Path

import pytest

from hf_ftedit.hub.folder import SavedEdits
from hf_ftedit.sharing.verification import BAD, GOOD, _score_checks

SCORES = {"efficacy": 90.0, "drift": 0.1, "near_names": 80.0}


def verdicts(claimed, measured):
    both = ({"protocol": "containment", "n_edits": 1, "before": {}, "after": after} for after in (claimed, measured))
    published, again = both
    checks = _score_checks(SavedEdits(Path(), [], published, {}, {}), again, 1.0)
    return {check.name.removeprefix("after: "): check.verdict for check in checks if check.name.startswith("after")}


def test_scores_that_0_1_0_did_not_measure_are_no_claim():
    assert verdicts({"efficacy": 90.0}, SCORES) == {"efficacy": GOOD}
    # Another one that is missing is.
    assert verdicts({"drift": 0.1}, SCORES) == {"efficacy": BAD, "drift": GOOD}


@pytest.mark.parametrize(("drift", "verdict"), [(0.119, GOOD), (0.121, BAD), (None, BAD), ("0.1", BAD)])
def test_drift_may_differ_by_nats(drift, verdict):
    assert verdicts(SCORES | {"drift": drift}, SCORES)["drift"] == verdict
    assert verdicts(SCORES | {"near_names": 80.9}, SCORES)["near names"] == GOOD
