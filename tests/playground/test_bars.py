"""The bars of a training are read: label, count and time left, of its thread alone; and it stops at any of them."""

from __future__ import annotations

import sys
import threading

import pytest
import tqdm.std
from datasets import Dataset
from tqdm.auto import tqdm as auto_tqdm

from hf_ftedit import EditError
from hf_ftedit.playground.bars import Progress, Stages

ROWS = "1 of 4: making training rows"


@pytest.fixture
def stages():
    """The first stage of a training, with all reports so far as `reports`."""
    reports = []
    stages = Stages(reports.append, threading.Event())
    stages.reports = reports
    with stages.reading_bars():
        stages.begin(ROWS)
        yield stages


def test_label_count_and_time_left(stages, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    with auto_tqdm(total=4, desc="Own answers", disable=None) as bar:
        now[0] = 10.0
        bar.update()
        bar.update(3)
    first, second = Progress(ROWS, "Own answers", 0, 4, None), Progress(ROWS, "Own answers", 1, 4, 30.0)
    assert stages.reports == [Progress(ROWS), first, second, Progress(ROWS)]


def test_a_map_of_datasets(stages, monkeypatch):
    # Where a test of the command line came first in this process, datasets was imported without bars.
    monkeypatch.setattr(sys.modules["datasets.utils.tqdm"], "_hf_datasets_progress_bars_disabled", False)
    Dataset.from_dict({"text": ["a", "b", "c"]}).map(lambda row: row, desc="What should stay")
    assert Progress(ROWS, "What should stay", 0, 3) in stages.reports


def test_bars_of_others_stay_as_they_are(stages, capsys):
    def work():
        with auto_tqdm(total=4, desc="Answering") as bar:
            bar.update(2)

    other = threading.Thread(target=work)
    other.start()
    other.join()
    auto_tqdm(total=4, disable=True).update()  # a part of another bar
    assert stages.reports == [Progress(ROWS)] and "Answering: " in capsys.readouterr().err
    work()
    assert stages.reports[1] == Progress(ROWS, "Answering", 0, 4) and not capsys.readouterr().err


def test_a_stop_acts_at_the_next_move_of_a_bar(stages):
    bar = auto_tqdm(total=4)
    stages.stop.set()
    with pytest.raises(EditError, match="the training was stopped; nothing has changed"):
        bar.update()
