"""
Kill `hf-ftedit train` at random moments, resume with --resume_from_checkpoint, and compare the files at the end.

    python examples/benchmarks/kill_test.py                  # the embedded model: 40 edits, 20 kills
    python examples/benchmarks/kill_test.py --signal TERM    # asked to stop instead of killed
    python examples/benchmarks/kill_test.py --bench          # the bench model and CounterFact of --shared

Two runs are left alone: their files are what every other run must end with, byte for byte. The duration of the quicker
one is cut into as many parts as there are kills, and in each a moment is drawn (--seed): a fresh process is killed,
and the same command with --resume_from_checkpoint is run until it ends. Rows are made anew each time: no run reads
those of another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edit_benchmark import ROOT, bench_model, parser_of

BENCH = "--learning_rate 1e-3 --lora_r 64 --lora_alpha 128 --num_train_epochs 2".split()
HEADER = """\
| kill | after s | of the run | phase | resumed from | s to the end | adapter the same | all files the same |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--bench", action="store_true", help="the bench model and CounterFact of --shared")
    parser.add_argument("--kills", type=int, default=20, help="how often to kill (20)")
    parser.add_argument("--num_edits", type=int, default=40, help="edits of a run (40)")
    parser.add_argument("--save_steps", type=int, default=10, help="steps between checkpoints (10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL", help="what is sent (KILL)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = KillTest(Path(folder), options).run()
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    raise SystemExit(0 if results["same"] == results["kills"] else 1)


class KillTest:
    """Runs in a folder, and the files that they end with."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.number = getattr(signal, f"SIG{options.signal}")
        self.flags = ["--max_edits", str(options.num_edits), "--save_strategy", "steps", "--logging_steps", "1"]
        self.flags += ["--predict_with_generate"]  # evaluation takes its share of the time then
        self.flags += ["--save_steps", str(options.save_steps), "--save_total_limit", "1"]
        if options.bench:
            model, data = bench_model(options.shared), options.shared / "data"
            self.flags += ["--model_name_or_path", model, "--edits", str(data / "counterfact.json"), *BENCH]
            self.flags += ["--locality_pool", str(data / "counterfact_easyedit.json")]

    def run(self) -> dict[str, Any]:
        duration = min(self.left_alone("whole"), self.left_alone("again"))
        self.expected = digests(self.folder / "whole")
        if digests(self.folder / "again") != self.expected:
            raise SystemExit("two runs that were left alone differ")
        print(f"A run that is left alone takes {duration:.1f} s.\n\n{HEADER}", flush=True)
        draw = random.Random(self.options.seed)
        part = duration / self.options.kills
        rows = []
        for kill in range(self.options.kills):
            rows.append(row := self.killed(kill + 1, (kill + draw.random()) * part, duration))
            same = [" yes " if row[name] else " NO " for name in ("same_adapter", "same_files")]
            cells = (f"{row['after']:.1f}", f"{row['share']:.0%}", row["phase"], row["from"], f"{row['rest']:.1f}")
            print(f"| {kill + 1} | {' | '.join(cells)} |{'|'.join(same)}|", flush=True)
        same = sum(row["same_adapter"] and row["same_files"] for row in rows)
        print(f"\n{same} of {len(rows)} runs ended with the files of the run that was left alone, byte for byte.")
        return {"duration": duration, "kills": len(rows), "same": same, "signal": self.options.signal, "rows": rows}

    def left_alone(self, name: str) -> float:
        """Seconds of a whole run."""
        start = time.perf_counter()
        if self.process(name).wait():
            raise SystemExit((self.folder / f"{name}.log").read_text())
        return time.perf_counter() - start

    def killed(self, kill: int, moment: float, duration: float) -> dict[str, Any]:
        """One run that is killed and resumed. A run that is over before its moment is made anew, killed earlier."""
        name, after = f"run{kill}", moment
        while True:
            process = self.process(name)
            try:
                process.wait(timeout=after)
            except subprocess.TimeoutExpired:
                process.send_signal(self.number)
                if process.wait() != 0:
                    break
            for left in (self.folder / name, self.cache(name)):
                shutil.rmtree(left, ignore_errors=True)
            after *= 0.95
        phase = self.phase(name)
        start = time.perf_counter()
        if self.process(name, "--resume_from_checkpoint").wait():
            raise SystemExit((self.folder / f"{name}.log").read_text())
        rest = time.perf_counter() - start
        log = (self.folder / f"{name}.log").read_text()
        files = digests(self.folder / name)
        resumed = re.search(r"Resuming from \S+/(\S+)", log)
        row = {
            "after": after,
            "share": after / duration,
            "phase": phase,
            "from": resumed[1] if resumed else "finished already" if "is complete" in log else "the beginning",
            "skipped": re.findall(r"(\S+) is incomplete and skipped", log),
            "rest": rest,
            "same_adapter": files.get("adapter_model.safetensors") == self.expected["adapter_model.safetensors"],
            "same_files": files == self.expected,
        }
        shutil.rmtree(self.folder / name)
        return row

    def process(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "hf_ftedit", "train", *self.flags, "--output_dir", name, *more]
        own = {"OMP_NUM_THREADS": str(self.options.threads), "HF_DATASETS_CACHE": str(self.cache(name))}
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, **own, "PYTHONUNBUFFERED": "1", "PYTHONPATH": paths}
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT)

    def cache(self, name: str) -> Path:
        return self.folder / f"{name}-cache"

    def phase(self, name: str) -> str:
        """The part of the run that was killed, by what it had printed and written."""
        log, folder = (self.folder / f"{name}.log").read_text(), self.folder / name
        if any(item for place in (self.folder, folder) for item in place.glob(f".hf_ftedit-{name}-*")):
            return "writing the folder"
        if (folder / "scores.png").exists():  # the last file
            return "at its end"
        if any(not (checkpoint / "edit_run.json").exists() for checkpoint in folder.glob("checkpoint-*")):
            return "writing a checkpoint"
        if "train_runtime" in log:
            return "evaluation after"
        if "'loss'" in log:
            return "training"
        if " training rows" in log:
            return "evaluation before"
        return "making rows" if any(self.cache(name).glob("*")) else "start"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a finished folder, checkpoints apart."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
