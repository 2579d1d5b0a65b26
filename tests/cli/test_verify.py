"""The last line of `hf-ftedit verify`."""

import pytest

from hf_ftedit.cli.verify import _verdict
from hf_ftedit.sharing.verification import BAD, GOOD, OPEN, Check


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ([GOOD, GOOD], "every claim holds"),
        ([GOOD, OPEN], "no claim differs; 1 was not checked"),
        ([OPEN, GOOD, OPEN], "no claim differs; 2 were not checked"),
        ([OPEN, GOOD, BAD], "1 of 3 claims does not hold"),
        ([BAD, OPEN, BAD], "2 of 3 claims do not hold"),
    ],
)
def test_the_verdict_says_what_was_not_checked(verdicts, line):
    assert _verdict([Check("", "", "", verdict) for verdict in verdicts]) == line
