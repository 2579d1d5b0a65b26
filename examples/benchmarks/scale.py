"""
Cost of editing stage by stage, as the number of edits grows.

    python examples/benchmarks/scale.py --plot scale.png --json scale.json
    python examples/benchmarks/scale.py --sizes 100 1000 --steps 50
    python examples/benchmarks/scale.py --chat_template

CounterFact in EasyEdit's form, the bench model, the package's default augmentation; the pool is the same 10,000 facts
at each size. Training stops after `--steps` batches of 32 rows, so that it shows what a step costs among so many rows;
what comes before the first step, such as making the trainer and putting the rows in order, is counted apart as
`set up`. Evaluating asks all probes of all edits. With `--chat_template` the same model, behind a template of user and
assistant, gets the rows of chat models, and `refer` is the unedited model's distributions of what must stay; what it
says makes no sense then, and takes the time of what does. Each size runs in a process of its own with an empty cache.
Memory is the peak while rows are made, trained and evaluated, above what the process had after the libraries and the
model were loaded (elsewhere than on Linux, the peak until then); what is read of files that lie on disk counts too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edit_benchmark

STAGES = ("read", "augment", "build", "tokenize", "refer", "set up", "train", "evaluate")
MAKING = STAGES[:5]  # what makes rows; its time an edit must not grow
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content }}"
    "{{ eos_token if message.role == 'assistant' }}\n{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = edit_benchmark.parser_of(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000], help="numbers of edits")
    parser.add_argument("--steps", type=int, default=50, help="steps to train (50)")
    parser.add_argument("--chat_template", action="store_true", help="rows, training and exam of a chat model")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves")
    parser.add_argument("--json", type=Path, help="file for all numbers of all sizes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def megabytes() -> float:
    """The process's peak memory since this was last asked."""
    peak = edit_benchmark.peak_memory()
    with contextlib.suppress(OSError, AttributeError):  # Linux with glibc: count again from what is in use now
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak


def measured(options: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Seconds of each stage, numbers of edits, rows and probes, and memory while rows are made, trained, evaluated."""
    from transformers import TrainerCallback

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
    from hf_ftedit.models import with_references
    from hf_ftedit.training.setup import tokenized

    name = str(options.shared / "models" / "counterfact-gpt2-5m")
    model, tokenizer, chat, steps = load_model(name), load_tokenizer(name), options.chat_template, options.steps
    tokenizer.chat_template = TEMPLATE if chat else None
    file, before, moments = options.shared / "data" / "counterfact_easyedit.json", megabytes(), [time.perf_counter()]

    def passed() -> None:
        moments.append(time.perf_counter())

    class FirstStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                passed()

    edits, pool = read_edits(file, limit=options.one, skip_invalid=True), read_facts(file)
    passed()
    training = {"learning_rate": 1e-3, "per_device_train_batch_size": 32, "max_steps": steps, "chat_template": chat}
    config = EditConfig(output_dir=cache, use_cpu=True, **training, **edit_benchmark.SILENT)
    settings = {"options": config, "chat_template": chat, "cache_dir": cache}
    builder = EditDatasetBuilder(edits, model, tokenizer, locality_pool=pool, **settings)
    passed()
    rows = builder.prepared("train")
    passed()
    encoded = tokenized(rows, tokenizer, model, config)  # the trainer finds them in the cache, and what is next
    passed()
    if chat:
        with_references(encoded, model, tokens_per_batch=config.eval_tokens_per_batch)
    passed()
    memory = [megabytes() - before]
    trainer = EditTrainer(model, config, train_dataset=rows, processing_class=tokenizer, callbacks=[FirstStep()])
    edit_benchmark.train(trainer)
    passed()
    memory.append(megabytes() - before)
    found = measure(trainer.model, tokenizer, edits, config)
    passed()
    took = [end - start for start, end in zip(moments, moments[1:], strict=False)]
    epochs, batches = divmod(steps, -(-len(rows) // config.per_device_train_batch_size))
    counts = {
        "edits": len(edits),
        "rows": len(rows),
        "trained": epochs * len(rows) + batches * config.per_device_train_batch_size,  # an epoch's last batch is short
        "probes": sum(found.scores["n_probes"].values()),
    }
    memory.append(megabytes() - before)
    return {**counts, **dict(zip(STAGES, took, strict=True)), "memory": memory}  # in megabytes, as in the table


def line(found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [f"{found[count]:,}" for count in ("edits", "rows", "probes")]
    cells += [f"{found[stage]:.2f}" for stage in STAGES]
    cells += [f"{1000 * sum(found[stage] for stage in MAKING) / found['edits']:.2f}"]
    cells += [f"{1000 * found['train'] / found['trained']:.2f}", f"{found['trained'] / found['train']:.0f}"]
    cells += [f"{1000 * found['evaluate'] / found['edits']:.2f}", *(f"{peak:.0f}" for peak in found["memory"])]
    return f"| {' | '.join(cells)} |"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds of each stage over the number of edits, on logarithmic scales; the legend in the lines' order."""
    from matplotlib.ticker import LogLocator

    from hf_ftedit.hub import figure_of

    figure, [axes] = figure_of(7.2, 4.4)
    edits = [found["edits"] for found in results]
    for stage, marker in sorted(zip(STAGES, "os^vDPX", strict=True), key=lambda it: -results[-1][it[0]]):
        axes.loglog(edits, [found[stage] for found in results], marker=marker, label=stage)
    axes.set(xlabel="edits", ylabel="seconds")
    axes.set_xticks(edits, [f"{count:,}" for count in edits], minor=False)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path)


def main() -> None:
    """Measure each size in a process of its own, and print a line for each."""
    options = arguments()
    if options.one:
        edit_benchmark.quiet()
        print(json.dumps(measured(options, os.environ["HF_DATASETS_CACHE"])))
        return
    each = "ms an edit to make rows | ms a row to train | rows/s trained | ms an edit to evaluate"
    memory = "MB, rows made | MB, trained | MB, evaluated"
    head = f"| edits | rows | probes | {' | '.join(f'{stage} s' for stage in STAGES)} | {each} | {memory} |"
    print(f"{head}\n|{'---|' * (head.count('|') - 1)}")
    results = []
    for size in options.sizes:
        command = [sys.executable, *sys.argv, "--one", str(size)]
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"HF_DATASETS_CACHE": cache}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
