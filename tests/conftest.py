"""What all tests share: the developers' real data, trained adapters, and the watch over slow tests."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from pathlib import Path

import pytest
from filelock import FileLock

SLOW_SECONDS = 10  # of processor time, the test's subprocesses included: a busy machine makes no test slow


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The developers' real data beside the repository; tests that need it are skipped where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip(f"needs the real data in {path / 'data'}")
    return path


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, worker_id) -> Path:
    """
    A folder with two adapters of the embedded model, `a` and `b`, of the first and the next 20 embedded edits.

    They are trained once for all test processes, and must not be changed: copy what a test writes to.
    """
    from hf_ftedit import asset, read_edits
    from hf_ftedit.cli import main
    from hf_ftedit.data.records import write_jsonl

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "adapters"  # the parent is common to all workers
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        edits = read_edits(asset("edits.jsonl"), limit=40)
        for name, part in (("a", edits[:20]), ("b", edits[20:])):
            if not (folder / name / "edit_config.yaml").is_file():
                write_jsonl(part, folder / f"{name}.jsonl")
                output = ["--edits", str(folder / f"{name}.jsonl"), "--output_dir", str(folder / name)]
                assert main(["train", *output, "--report_to", "none"]) == 0
    return folder


def pytest_collection_finish() -> None:
    """Keep what the imports made out of garbage collection: each training ends with one, which takes 0.3 s else."""
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-slow", action="store_true", help="Fail where a slow test lacks its mark.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Note how much processor time a test takes, with its fixtures and its subprocesses."""
    item.stash[_START] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if call.when == "teardown" and item.get_closest_marker("slow") is None:
        report.user_properties.append(("unmarked_seconds", _processor_seconds() - item.stash[_START]))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Name tests that take more than ten seconds and lack the mark `slow`, so that `make test-fast` stays quick."""
    if slow := _unmarked(terminalreporter):
        terminalreporter.section(f"slow tests without @pytest.mark.slow (over {SLOW_SECONDS} s of processor time)")
        for seconds, nodeid in sorted(slow, reverse=True):
            terminalreporter.line(f"{seconds:5.1f} s  {nodeid}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-slow") and reporter and _unmarked(reporter) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_START = pytest.StashKey[float]()


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _unmarked(reporter) -> list[tuple[float, str]]:
    seconds: dict[str, float] = defaultdict(float)
    for report in reporter.stats.get("", []):  # teardowns that passed
        seconds[report.nodeid] += dict(report.user_properties).get("unmarked_seconds", 0.0)
    return [(taken, nodeid) for nodeid, taken in seconds.items() if taken > SLOW_SECONDS]
