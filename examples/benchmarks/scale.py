"""
Cost of reading edits and making their training rows, stage by stage, as their number grows.

    python examples/benchmarks/scale.py

CounterFact in EasyEdit's form, the bench model, the package's default augmentation; the pool is the same 10,000 facts
at each size. Each size runs in a process of its own with an empty cache. Memory is the process's peak above what it
had after the libraries and the model were loaded.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import edit_benchmark

STAGES = ("read", "augment", "build", "tokenize")


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=edit_benchmark.ROOT.parent / "shared")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000], help="numbers of edits")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def megabytes() -> float:
    """The process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(shared: Path, size: int, cache: str) -> str:
    """A line of the table: seconds of each stage, milliseconds an edit, rows, and memory."""
    from hf_ftedit import EditConfig, EditDatasetBuilder, load_model, load_tokenizer, read_edits, read_facts
    from hf_ftedit.dataset import encode_rows

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
    encode_rows(rows, tokenizer, EditConfig(output_dir=cache, use_cpu=True))
    passed()
    took = [end - start for start, end in zip(moments, moments[1:], strict=False)]
    each = 1000 * sum(took) / len(edits)
    seconds = " | ".join(f"{stage:.2f}" for stage in took)
    return f"| {len(edits)} | {seconds} | {each:.2f} | {len(rows)} | {megabytes() - before:.0f} |"


def main() -> None:
    """Measure each size in a process of its own, and print a line for each."""
    options = arguments()
    if options.one:
        edit_benchmark.quiet()
        with tempfile.TemporaryDirectory() as cache:
            print(measured(options.shared, options.one, cache))
        return
    print(f"| edits | {' | '.join(f'{stage} s' for stage in STAGES)} | ms an edit | rows | peak memory, MB |")
    print(f"|{'---|' * (len(STAGES) + 4)}")
    for size in options.sizes:
        command = [sys.executable, __file__, "--shared", str(options.shared), "--one", str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
