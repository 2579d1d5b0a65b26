"""The picture of the scores: a PNG that depends on nothing but the results, whatever is undefined in them."""

import json
import struct
import subprocess
import sys

import pytest
from test_card import AFTER, BEFORE, RESULTS

from hf_ftedit.hub.plot import NAMES, scores_plot

NOTHING = {**BEFORE, **dict.fromkeys(NAMES), **{f"{name}_ci95": None for name in NAMES}}


def size(picture):
    """Width and height in pixels, from the header of a PNG."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and picture[12:16] == b"IHDR" and picture[-8:-4] == b"IEND"
    return struct.unpack(">II", picture[16:24])


def plot(before, after):
    return scores_plot({**RESULTS, "before": before, "after": after})


def test_a_png_as_wide_as_a_page_with_a_row_for_each_score():
    width, height = size(scores_plot(RESULTS))
    assert 700 < width < 1000 and 300 < height < 500
    taller = size(plot(BEFORE, {**AFTER, "portability": 12.0, "portability_ci95": [0.0, 30.0]}))
    assert taller[0] == width and taller[1] > height


def test_the_same_results_are_the_same_bytes():
    script = "import json, sys; from hf_ftedit.hub.plot import scores_plot as plot; results = json.load(sys.stdin)\n"
    script += "sys.stdout.buffer.write(plot(results)); assert 'matplotlib.pyplot' not in sys.modules"
    given = json.dumps(RESULTS).encode()
    again = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=True).stdout
    assert scores_plot(RESULTS) == again
    assert plot(BEFORE, {**AFTER, "locality": 80.0}) != again


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, {**AFTER, "locality": None, "locality_ci95": None}),
        ({**BEFORE, "efficacy": None, "efficacy_ci95": None}, AFTER),
        ({"efficacy": 0.0, "n_edits": 2}, {"efficacy": 100.0, "n_edits": 2}),
        (NOTHING, {**NOTHING, "locality": 50.0, "locality_ci95": [0.0, 100.0]}),
        (NOTHING, NOTHING),
    ],
    ids=["undefined after", "undefined before", "one score without interval", "long interval", "no score at all"],
)
def test_what_is_undefined_or_missing_is_no_problem(before, after):
    width, height = size(plot(before, after))
    assert width > 700 and height > 90
