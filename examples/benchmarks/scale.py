"""
Cost of editing stage by stage, as the number of edits grows.

    python examples/benchmarks/scale.py --plot scale.png

CounterFact in EasyEdit's form, the bench model, the package's default augmentation; the pool is the same 10,000 facts
at each size. Training stops after `--steps` batches of 32 rows, so that it shows what a step costs among so many rows;
evaluating asks all probes of all edits. Each size runs in a process of its own with an empty cache. Memory is the
process's peak above what it had after the libraries and the model were loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edit_benchmark

STAGES = ("read", "augment", "build", "tokenize", "train", "evaluate")
MAKING = STAGES[:4]  # what makes rows; its time an edit must not grow


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=edit_benchmark.ROOT.parent / "shared")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000], help="numbers of edits")
    parser.add_argument("--steps", type=int, default=50, help="steps to train (50)")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def megabytes() -> float:
    """The process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(shared: Path, size: int, steps: int, cache: str) -> dict[str, Any]:
    """Seconds of each stage, numbers of edits, rows and probes, and memory when rows are made, trained, evaluated."""
    from transformers import PrinterCallback

    from hf_ftedit import (
        EditConfig,
        EditDatasetBuilder,
        EditTrainer,
        load_model,
        load_tokenizer,
        measure,
        read_edits,
        read_facts,
    )
    from hf_ftedit.preparation import encoded

    name = str(shared / "models" / "counterfact-gpt2-5m")
    model, tokenizer = load_model(name), load_tokenizer(name)
    file, before, moments = shared / "data" / "counterfact_easyedit.json", megabytes(), [time.perf_counter()]

    def passed() -> None:
        moments.append(time.perf_counter())

    edits, pool = read_edits(file, limit=size, skip_invalid=True), read_facts(file)
    passed()
    builder = EditDatasetBuilder(edits, model, tokenizer, locality_pool=pool, cache_dir=cache)
    passed()
    rows = builder.prepared("train")
    passed()
    quiet = {"disable_tqdm": True, "report_to": "none", "logging_steps": 1_000_000}
    config = EditConfig(output_dir=cache, use_cpu=True, max_steps=steps, learning_rate=1e-3, **quiet)
    encoded(rows, config, tokenizer, model)  # the trainer finds them in the cache
    passed()
    memory = [megabytes() - before]
    trainer = EditTrainer(model, config, train_dataset=rows, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    passed()
    memory.append(megabytes() - before)
    found = measure(trainer.model, tokenizer, edits, config)
    passed()
    took = [end - start for start, end in zip(moments, moments[1:], strict=False)]
    counts = {"edits": len(edits), "rows": len(rows), "probes": sum(found.scores["n_probes"].values())}
    memory.append(megabytes() - before)
    return {**counts, **dict(zip(STAGES, took, strict=True)), "memory": memory}


def line(found: dict[str, Any]) -> str:
    """A line of the table."""
    each = 1000 * sum(found[stage] for stage in MAKING) / found["edits"]
    seconds = " | ".join(f"{found[stage]:.2f}" for stage in STAGES)
    memory = " | ".join(f"{peak:.0f}" for peak in found["memory"])
    return f"| {found['edits']} | {found['rows']} | {found['probes']} | {seconds} | {each:.2f} | {memory} |"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds of each stage over the number of edits, on logarithmic scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    edits = [found["edits"] for found in results]
    for stage, marker in zip(STAGES, "os^vDP", strict=True):
        axes.loglog(edits, [found[stage] for found in results], marker=marker, label=stage)
    axes.set(xlabel="edits", ylabel="seconds")
    axes.set_xticks(edits, [f"{count:,}" for count in edits], minor=False)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measure each size in a process of its own, and print a line for each."""
    options = arguments()
    if options.one:
        edit_benchmark.quiet()
        with tempfile.TemporaryDirectory() as cache:
            print(json.dumps(measured(options.shared, options.one, options.steps, cache)))
        return
    seconds = " | ".join(f"{stage} s" for stage in STAGES)
    print(f"| edits | rows | probes | {seconds} | ms an edit to make rows | MB then | MB trained | MB evaluated |")
    print(f"|{'---|' * (len(STAGES) + 7)}")
    results = []
    for size in options.sizes:
        command = [sys.executable, __file__, "--shared", str(options.shared), "--one", str(size)]
        done = subprocess.run([*command, "--steps", str(options.steps)], stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(results[-1]), flush=True)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
