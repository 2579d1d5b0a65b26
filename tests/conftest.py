"""What all tests share: the developers' real data, trained adapters, and the watch over slow tests."""

from __future__ import annotations

import gc
import os
import signal
from collections import defaultdict
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

# A test is slow if it takes more than a second with all of its cases: of processor time, subprocesses included, for a
# busy machine makes no test slow. A file lists them, which `--write-slow` writes: no marks to keep by hand.
SLOW_SECONDS = 1
SLOW = Path(__file__).with_name("slow.txt")
# A shell starts what runs in its background with Ctrl-C ignored, which the tests of stopping send.
signal.signal(signal.SIGINT, signal.default_int_handler)
# By itself hypothesis fails a case that takes more than 200 ms, as on a busy machine any may.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


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
    A folder with two adapters of the embedded model, `a` and `b`, of the first and the next five embedded edits.

    They are trained once for all test processes, and must not be changed: copy what a test writes to.
    """
    from tiny import measure_drift_by_few_prompts

    from hf_ftedit import asset, read_edits
    from hf_ftedit.cli import main
    from hf_ftedit.data.records import write_jsonl

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "adapters"  # the parent is common to all workers
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"), pytest.MonkeyPatch.context() as patch:
        measure_drift_by_few_prompts(patch.setattr)
        edits = read_edits(asset("edits.jsonl"), limit=10)
        for name, part in (("a", edits[:5]), ("b", edits[5:])):
            if not (folder / name / "edit_config.yaml").is_file():
                write_jsonl(part, folder / f"{name}.jsonl")
                output = ["--edits", str(folder / f"{name}.jsonl"), "--output_dir", str(folder / name)]
                assert main(["train", *output, "--text_loss_weight", "0", "--report_to", "none"]) == 0
    return folder


@pytest.fixture(scope="module")
def few_drift_prompts():
    """Drift is measured by few prompts (see `tiny`)."""
    from tiny import measure_drift_by_few_prompts

    with pytest.MonkeyPatch.context() as patch:
        measure_drift_by_few_prompts(patch.setattr)
        yield


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> None:
    """Rows that were made in an earlier run are not found."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch) -> None:
    """The working folder is the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Fails where weights are loaded."""
    import transformers

    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)


def pytest_collection_finish() -> None:
    """Keep what the imports made out of garbage collection: each training ends with one, which takes 0.3 s else."""
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-slow", action="store_true", help=f"Write the tests that are slow now into {SLOW.name}.")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and begin with the files that hold it: the short ones fill up the processes at the end."""
    for item in items:
        if _function(item.nodeid) in _listed():
            item.add_marker("slow")
    files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in files)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Note how much processor time a test takes, with its fixtures and its subprocesses."""
    item.stash[_START] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    # What a mark in its file makes slow need not be listed.
    if call.when == "teardown" and (item.get_closest_marker("slow") is None or _function(item.nodeid) in _listed()):
        report.user_properties.append(("seconds", _processor_seconds() - item.stash[_START]))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Name tests that are slow and not listed as such, so that `make test-fast` stays quick; or list them anew."""
    seconds: dict[str, float] = defaultdict(float)
    for report in terminalreporter.stats.get("", []):  # teardowns that passed
        seconds[_function(report.nodeid)] += dict(report.user_properties).get("seconds", 0.0)
    listed = _listed()
    slow = {name: taken for name, taken in seconds.items() if taken > SLOW_SECONDS}
    if config.getoption("--write-slow"):
        others = {name for name in listed - {*seconds} if _exists(config.rootpath, *name.split("::"))}
        SLOW.write_text("".join(f"{name}\n" for name in sorted({*slow, *others})), encoding="utf-8")
    elif unlisted := {*slow} - listed:
        terminalreporter.section(f"slow tests that {SLOW.name} does not list (see CONTRIBUTING.md)")
        for name in sorted(unlisted, key=slow.get, reverse=True):
            terminalreporter.line(f"{slow[name]:5.1f} s  {name}")


_START = pytest.StashKey[float]()


@cache
def _listed() -> set[str]:
    return set(SLOW.read_text(encoding="utf-8").splitlines())


def _function(nodeid: str) -> str:
    """A test with all of its cases."""
    return nodeid.partition("[")[0]


def _exists(root: Path, file: str, name: str) -> bool:
    return (root / file).is_file() and f"def {name}(" in (root / file).read_text(encoding="utf-8")


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
