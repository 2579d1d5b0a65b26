"""`hf-ftedit sweep`: train a grid of settings, run by run, and put what came of it into one table and plots."""

import contextlib
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hf_ftedit import models
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import is_first_process, written_to
from hf_ftedit.cli.grid import Run, read_grid
from hf_ftedit.cli.study import column_of, row_of, write_study
from hf_ftedit.cli.train import options_of, settings_of, task_of, trained
from hf_ftedit.errors import EditError, one_line
from hf_ftedit.evaluation import score_text
from hf_ftedit.files import claims, holding, moved_in, require_empty, write_text
from hf_ftedit.options import SOURCES
from hf_ftedit.text import counted, masked, without_secrets

RUN_FILE = "run.json"  # of a finished run, beside its adapter
WORKER = "HF_FTEDIT_SWEEP_WORKER"  # environment variable: "place/count" of a process that runs a share

# Options of which what `train` reads, or refuses, depends.
_READ_BY = ("edits", "erase", "format", "max_edits", *SOURCES, "adapter", "revoke", "measure_fluency", "chat_template")


def run(argv: Sequence[str]) -> int:
    """Run what is not finished, and write the table and the plots of all runs; the exit code, 1 where one failed."""
    arguments = read_arguments("sweep", argv)
    options = arguments.options()
    if not options.grid or not options.output_dir:
        raise EditError("sweep needs --config grid.yaml, and --output_dir for the study")
    if not is_first_process():
        raise EditError("sweep starts processes of its own (--num_workers); run it without accelerate launch")
    runs = read_grid(options.grid, arguments.flags, sample=options.sample, seed=options.sample_seed)
    folder = Path(options.output_dir)
    if worker := os.environ.get(WORKER):  # the process that started it has checked the runs
        place, count = map(int, worker.split("/"))
        run_share(runs[place::count], folder)
        return 0
    check_runs(runs)
    if not (folder / "runs").is_dir():
        require_empty(folder)
    # Not as a claim: those of the runs end one by one.
    with holding(folder):
        missing = _missing(runs, folder)
        print(f"{counted(len(runs), 'run')}, {len(runs) - len(missing)} of them finished before")
        for each in missing:  # what failed, or what a killed process left
            shutil.rmtree(folder / "runs" / each.name, ignore_errors=True)
        with _progress(runs, folder) as advance:
            if options.num_workers > 1:
                _run_in_processes(argv, options.num_workers, advance)
            else:
                run_share(runs, folder, advance)
        varied = list(dict.fromkeys(column_of(name) for each in runs for name in each.varied))
        lost = {"error": "the process that ran it ended; run the command again"}
        rows = [row_of(each.name, without_secrets(each.varied), _record(folder, each) or lost) for each in runs]
        print(write_study(folder, rows, varied))
    print(written_to(options.output_dir, "results.parquet, results.md, plots and a folder for each run"))
    if failed := sum(row["error"] is not None for row in rows):
        print(f"{counted(failed, 'run')} failed: the table has the errors; the same command tries them again")
    return 1 if failed else 0


def check_runs(runs: Sequence[Run]) -> None:
    """Raise [`~hf_ftedit.EditError`] for a setting or edits that `train` refuses, before the first run."""
    read: set[str] = set()
    for each in runs:
        arguments = read_arguments("train", each.arguments)
        defaults, options, adapter = options_of(arguments)
        settings_of(arguments, {**defaults, **vars(options)})
        sources = str([getattr(options, name) for name in _READ_BY])
        if sources not in read:
            task_of(options, adapter)
            read.add(sources)


def run_share(runs: Sequence[Run], folder: Path, advance: Callable[[], Any] = lambda: None) -> None:
    """Train those of `runs` that are not finished, one after the other; one that fails leaves its error."""
    logging.getLogger("hf_ftedit").setLevel(logging.WARNING)
    with models.keeping_answers({}):
        for each in _missing(runs, folder):
            with claims:  # the run's folder is held while it runs: each is an open file, and runs may be many
                _train_one(each, folder)
            advance()


def _train_one(run: Run, folder: Path) -> None:
    """Train one run, and leave its results or its error."""
    place = folder / "runs" / run.name
    place.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    _forget_peak_memory()
    record: dict[str, Any] = without_secrets({"settings": run.settings, "varied": run.varied})
    try:
        # Tables of many runs would bury the bar.
        with place.with_suffix(".log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            record |= trained([*run.arguments, "--output_dir", str(place)])
    except Exception as error:  # of whatever kind: the other runs go on
        record["error"] = masked(one_line(error))
    record |= {"seconds": time.perf_counter() - begin, "peak_memory_mb": _peak_memory()}
    with moved_in(place) as new:
        write_text(new / RUN_FILE, json.dumps(record, indent=2, default=str, ensure_ascii=False) + "\n")
    gc.collect()
    after = (record.get("results") or {}).get("after") or {}
    outcome = record.get("error") or f"edit score {score_text(after, 'edit_score')}"
    tqdm.write(f"{', '.join(f'{name} {value}' for name, value in run.varied.items())}: {outcome}")


def _record(folder: Path, run: Run) -> dict[str, Any] | None:
    """What a finished run, or one that failed, left."""
    file = folder / "runs" / run.name / RUN_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _missing(runs: Sequence[Run], folder: Path) -> list[Run]:
    """The runs that are not finished; those that failed are tried again."""
    return [each for each in runs if (record := _record(folder, each)) is None or "error" in record]


@contextlib.contextmanager
def _progress(runs: Sequence[Run], folder: Path) -> Iterator[Callable[[], Any]]:
    """A bar over runs with the time left, and what moves it to where the runs are."""
    files = [folder / "runs" / each.name / RUN_FILE for each in runs]

    def ended() -> int:
        return sum(file.is_file() for file in files)

    with tqdm(total=len(runs), initial=ended(), desc="Runs", unit="run") as bar:
        yield lambda: bar.update(ended() - bar.n)


def _run_in_processes(argv: Sequence[str], count: int, advance: Callable[[], Any]) -> None:
    """Run shares in `count` processes, each on a device of its own where there are several."""
    import torch

    devices = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # those that this process may see
    threads = str(max(1, (os.cpu_count() or 1) // count))
    processes = []
    try:
        for place in range(count):
            own = {WORKER: f"{place}/{count}", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
            if devices > 1:
                own["CUDA_VISIBLE_DEVICES"] = names[place % devices] if any(names) else str(place % devices)
            command = [sys.executable, "-m", "hf_ftedit", "sweep", *argv]
            processes.append(subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.DEVNULL))
        while any(process.poll() is None for process in processes):
            time.sleep(1)
            advance()
        advance()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:  # each ends a step, and all do at once
            process.wait()


def _forget_peak_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # of Linux alone
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> float | None:
    """The most memory that a run took, in MB: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
    return None
