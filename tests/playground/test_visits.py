"""Visits without a page: trained, asked, switched, taken back, stopped; nobody sees another's, and the model stays."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from embedded_playground import EDIT, embedded_playground
from hub_storage import File
from loopback_hub import LoopbackHub, run

from hf_ftedit import EditError, open_edits
from hf_ftedit.hub.folder import ADAPTER_FILES
from hf_ftedit.models import weights_fingerprint
from hf_ftedit.playground import visits
from hf_ftedit.playground.bars import Progress
from hf_ftedit.playground.visits import LONGEST, MOST_FACTS, MOST_VISITS, Visit

HAMLET, OLD, NEW = EDIT["prompt"], "William Shakespeare", "Charles Dickens"
LOAD = """
import json, os, sys
from embedded_playground import embedded_playground
from hf_ftedit import EditError
from hf_ftedit.playground import visits

visits.MOST_BYTES, visits.MOST_ADAPTERS = 4 * 10**6, 1
playground, answers = embedded_playground(), []
visit = playground.visit("mine")
for name in ("user/large", "user/bad", "user/small", "user/small", "user/other"):
    try:
        playground.load(visit, name)
        answers.append(visit.active)
    except EditError as error:
        answers.append(str(error))
kept = os.listdir(visit.directory.name)
playground.leave("mine")
print(json.dumps([answers, kept, str(visit.folders["user/small"]), visit.folders["user/small"].exists()]))
"""
FRANCE = {"prompt": "The capital of France is", "target_new": "Oslo", "subject": "France"}


@pytest.fixture(scope="module")
def playground():
    return embedded_playground()


def last(events):
    *_, event = events
    return event


def refuse(folders):
    raise EditError("no room")


def test_two_requests_of_a_page_at_once_are_of_one_visit(playground, monkeypatch):
    def slow(*args):
        time.sleep(0.3)
        return Visit(*args)

    monkeypatch.setattr(visits, "Visit", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(playground.visit, ["at once", "at once"])
    assert first is second is playground.visit("at once")


def test_facts_are_trained_and_one_is_taken_back(playground, monkeypatch):
    before = weights_fingerprint(playground.model)
    mine, other = playground.visit("mine"), playground.visit("other")
    *steps, trained = playground.train(mine, [EDIT, FRANCE])
    assert all(isinstance(step, Progress) for step in steps)
    # Every stage counts, not the training alone: two facts' answers, the prompts of drift, the steps.
    bars = {(step.stage[0], step.label, step.total) for step in steps if step.total}
    assert bars >= {("1", "Sampling prefixes of 5 tokens", 1), ("2", "Drift: answers", 40), ("3", "Steps", 2)}
    assert bars >= {("2", "Evaluating: answers", 2), ("4", "Evaluating: answers", 2)}
    assert trained.name == f"1: {HAMLET} → {NEW} and 1 more"
    assert [row[1:] for row in trained.questions.rows] == [[HAMLET, OLD, NEW], [FRANCE["prompt"], "Paris", "Oslo"]]
    *parts, whole = playground.ask(mine, HAMLET)
    # Both come piece by piece; which of the two threads speaks first is not settled.
    assert whole == (OLD, NEW) and next(filter(any, parts)) in {("William", ""), ("", "Charles")}
    assert "William" in {old for old, _ in parts} and "Charles" in {new for _, new in parts}
    assert last(playground.ask(other, HAMLET)) == (OLD, OLD)
    # Retrained from the base model without it, in the place of the first adapter.
    hamlet, _ = mine.facts(trained.name)
    folders = dict(mine.folders)
    with monkeypatch.context() as patch, pytest.raises(EditError, match="no room"):  # the first one stays until then
        patch.setattr(playground, "_with_adapters", refuse)
        last(playground.train(mine, [], trained.name, [hamlet.edit_id]))
    assert mine.folders == folders and mine.active == [trained.name]
    Path(mine.directory.name, "edits-1.zip").touch()  # its download
    again = last(playground.train(mine, [], trained.name, [hamlet.edit_id]))
    assert mine.active == list(mine.folders) == [again.name]
    assert [path.name for path in Path(mine.directory.name).iterdir()] == ["edits-3"]  # nothing of the others
    assert last(playground.ask(mine, HAMLET)) == (OLD, OLD)
    assert last(playground.ask(mine, FRANCE["prompt"])) == ("Paris", "Oslo")
    playground.switch(mine, [])
    assert last(playground.ask(mine, FRANCE["prompt"])) == ("Paris", "Paris") and mine.model is playground.model
    assert weights_fingerprint(playground.model) == before
    assert not any(weight.requires_grad for weight in playground.model.parameters())


@pytest.mark.parametrize("label", ["Tokenizing rows", "Steps"])
def test_a_training_is_stopped(playground, label, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)  # none of an earlier run
    # A test of an example may have turned them off.
    monkeypatch.setattr(sys.modules["datasets.utils.tqdm"], "_hf_datasets_progress_bars_disabled", False)
    visit = playground.visit("stopped")
    with pytest.raises(EditError, match="the training was stopped; nothing has changed"):
        for step in playground.train(visit, [EDIT]):
            if step.label == label:
                visit.stop.set()
    assert not visit.folders and visit.model is playground.model
    assert not list(Path(visit.directory.name).iterdir())  # nothing is kept of it
    with pytest.raises(EditError, match="target_new"):  # the visit is free for the next
        last(playground.train(visit, [{"prompt": HAMLET, "target_new": " "}]))


def test_who_waits_for_another_visitor_can_stop(playground):
    visit = playground.visit("waiting")
    with playground._training:
        steps = playground.train(visit, [EDIT])
        assert next(steps) == Progress("Waiting for the training of another visitor")
        visit.stop.set()
        with pytest.raises(EditError, match="the training was stopped; nothing has changed"):
            last(steps)
        assert not visit.busy.locked()


def test_given_adapters_add_up_and_are_switched_one_by_one(adapters):
    playground = embedded_playground(a=adapters / "a", b=adapters / "b")
    first, second = (open_edits(str(adapters / name)).records[0] for name in "ab")
    mine, other = playground.visit("mine"), playground.visit("other")
    playground.switch(mine, ["b"])
    for visit, edit in ((mine, first), (mine, second), (other, first), (other, second)):
        is_new = (visit, edit) != (mine, first)
        old, now = last(playground.ask(visit, edit.prompt))
        assert (now == edit.target_new, now == old) == (is_new, not is_new)


def test_what_strangers_ask_for_is_bounded(playground):
    visit = playground.visit("first")
    folder = visit.directory.name
    for number in range(MOST_VISITS):
        playground.visit(str(number))
    assert visit.stop.is_set() and playground.visit("first") is not visit
    assert not Path(folder).exists()
    for facts in ([EDIT] * (MOST_FACTS + 1), [{**EDIT, "subject": "x" * (LONGEST + 1)}], [{**EDIT, "prompt": None}]):
        with pytest.raises(EditError, match=f"more than {MOST_FACTS}|at most {LONGEST} characters"):
            last(playground.train(visit, facts))
    with pytest.raises(EditError, match="no session_hash"):
        playground.visit(None)


def test_what_a_visitor_downloads_is_small_and_goes_with_the_visit(adapters, tmp_path):
    files = {file.name: File(file.read_bytes()) for file in (adapters / "a").iterdir() if file.is_file()}
    ignored = {"training.log": File(b"x" * 5_000_000)}  # nothing that would be downloaded
    with LoopbackHub() as hub:
        weights = "adapter_model.safetensors"
        sizes = {"large": {weights: File(b"x" * 4_000_000)}, "bad": {weights: File(b"x" * 1000)}, "small": ignored}
        for name, more in sizes.items():
            hub.hold(f"user/{name}", files | more)
        here = str(Path(__file__).parent)
        (large, bad, *small, other), kept, folder, is_there = run(
            LOAD, hub.environment(tmp_path) | {"PYTHONPATH": here}
        )
    size = f"{4 + sum(len(file.data) for name, file in files.items() if name in ADAPTER_FILES[1:]) / 10**6:,.1f}"
    told = f"user/large: its files have {size} MB, more than the 4.0 MB that may be downloaded from here; "
    assert large == told + "give a smaller adapter"
    assert "user/bad" in bad and kept == ["hub-3"]  # nothing of what was refused
    assert small == [["user/small"]] * 2 and other.startswith("you have 1 adapters, which is the limit")
    assert not any("/resolve/" in request and "large" in request for request in hub.requests)
    assert folder.startswith(str(Path(tempfile.gettempdir()))) and not is_there and not any(tmp_path.rglob("*.json*"))
