"""
Measure the package on real edits: the bench model's scores before and after, by both protocols.

    python examples/benchmarks/edit_benchmark.py                 # the first 100 records of CounterFact
    python examples/benchmarks/edit_benchmark.py --skip 100      # 100 others
    python examples/benchmarks/edit_benchmark.py --data zsre

All settings are the package's defaults.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hf_ftedit import EditRecord, EditTrainer, Fact

ROOT = Path(__file__).resolve().parents[2]
SILENT = {"disable_tqdm": True, "report_to": "none", "logging_steps": 1_000_000}  # settings of trainers
COLUMNS = ("edit_score", "efficacy", "generalization", "locality")
HEADER = """\
| run | rows | train s | probability: edit score | eff. | gen. | loc. | accuracy: edit score | eff. | gen. | loc. |
|---|---|---|---|---|---|---|---|---|---|---|"""


class Bench(NamedTuple):
    """What is edited: the model's folder, the edits, and the facts that must stay."""

    model: str
    edits: list[EditRecord]
    pool: list[Fact]


def parser_of(description: str, **settings: Any) -> argparse.ArgumentParser:
    """A parser of a benchmark's options, with the one that all have."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form, **settings)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/ and models/")
    return parser


def arguments(description: str) -> tuple[argparse.Namespace, list[str]]:
    """The benchmark's own arguments, and the rest, which are flags of `hf-ftedit train`."""
    epilog = "Any flag of `hf-ftedit train` may be added, such as --seed, --num_train_epochs or --num_locality."
    parser = parser_of(description, epilog=epilog, allow_abbrev=False)
    parser.add_argument("--data", choices=["counterfact", "zsre"], default="counterfact", help="which records to edit")
    parser.add_argument("--num_edits", type=int, default=100, help="how many records to edit (100)")
    parser.add_argument("--skip", type=int, default=0, help="how many records to pass over first (0)")
    return parser.parse_known_args()


def bench_model(shared: Path) -> str:
    """The folder of the bench model, which must be there."""
    model = shared / "models" / "counterfact-gpt2-5m"
    if not model.is_dir():
        raise SystemExit(f"the bench model {model} is missing: give --shared, the folder with data/ and models/")
    return str(model)


def load(options: argparse.Namespace) -> Bench:
    """The records to edit, and a pool of all others: the augmenter itself leaves out what is edited or probed."""
    from hf_ftedit import read_edits, read_facts

    model, data = bench_model(options.shared), options.shared / "data"
    names = {"counterfact": ("counterfact.json", "counterfact_easyedit.json"), "zsre": ("zsre_mend.json",) * 2}
    edits, pool = (data / name for name in names[options.data])
    records = read_edits(edits, limit=options.skip + options.num_edits, skip_invalid=options.data == "zsre")
    return Bench(model, records[options.skip :], read_facts(pool))


def edited(bench: Bench, flags: list[str], **settings: Any) -> tuple[EditTrainer, float]:
    """A trainer that has edited a fresh model, and the seconds that its training took."""
    from hf_ftedit import EditDatasetBuilder, EditTrainer, load_model, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        config, lora = configs(flags, output_dir=folder, **SILENT, **settings)
        model, tokenizer = load_model(bench.model), load_tokenizer(bench.model)
        rows = EditDatasetBuilder(
            bench.edits, model, tokenizer, locality_pool=bench.pool, options=config, seed=config.seed
        )
        check(rows.prepared("train"), bench.edits)
        trainer = EditTrainer(
            model=model,
            args=config,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora,
        )
        return trainer, train(trainer)


def configs(flags: list[str], **defaults: Any) -> tuple[Any, Any]:
    """The package's settings of flags of `hf-ftedit train`, and the LoRA."""
    from trl import TrlParser, get_peft_config

    from hf_ftedit import EditConfig, EditModelConfig

    parser = TrlParser((EditConfig, EditModelConfig))
    parser.set_defaults(**defaults)
    config, model_config = parser.parse_args_and_config(flags)
    return config, get_peft_config(model_config)


def train(trainer: Any) -> float:
    """Train without a word; the seconds that it took."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def check(rows: Any, edits: list[EditRecord]) -> None:
    """Stop where a row is a probe, or rehearses an edit's old answer."""
    probes = {prompt for edit in edits for prompt in edit.paraphrase_prompts}
    probes |= {probe.prompt for edit in edits for probe in edit.neighborhood_prompts}
    prompts = {edit.prompt for edit in edits}
    for row in rows:
        if row["kind"] == "rewrite":
            continue  # what is to be edited, also where it is another edit's probe
        if row["prompt"] in probes or (row["kind"] == "locality" and row["prompt"] in prompts):
            raise SystemExit(f"edit {row['edit_id']!r}: the {row['kind']} row {row['prompt']!r} gives the test away")


def table_line(name: str, scores: dict[str, Any], rows: int | None = None, seconds: float | None = None) -> str:
    """Scores by both protocols as a line of the table under `HEADER`; a dash where there is no value."""
    values = [scores[protocol][column] for protocol in ("probability", "accuracy") for column in COLUMNS]
    cells = [name, "—" if rows is None else f"{rows}", "—" if seconds is None else f"{seconds:.0f}"]
    return f"| {' | '.join(cells + ['—' if value is None else f'{value:.1f}' for value in values])} |"


def matrix_rate(dtype: str = "float32", seconds: float = 1.0) -> float:
    """Operations a second of matrix products on the GPU, or on this process's threads where there is none."""
    import torch

    from hf_ftedit.models.kernels import fast_products

    on_gpu = torch.cuda.is_available()
    size = 8192 if on_gpu else 1024
    one, other = (
        torch.rand(size, size, dtype=getattr(torch, dtype), device="cuda" if on_gpu else "cpu") for _ in "ab"
    )
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    with fast_products():
        for _ in range(3):
            one @ other
        wait()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(10):
                one @ other
            wait()
            count += 10
    return 2 * size**3 * count / (time.perf_counter() - start)


def peak_memory() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)


def quiet(threads: int | None = None) -> None:
    """Say what the package does; leave out what libraries warn of. With `threads`, PyTorch has so many."""
    warnings.filterwarnings("ignore")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_ftedit").setLevel(logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    import datasets
    import torch
    from transformers.utils import logging as transformers_logging

    if threads:
        torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def main() -> None:
    """Edit once, and print the scores before and after."""
    options, flags = arguments(__doc__)
    quiet()
    bench = load(options)
    trainer, seconds = edited(bench, flags)
    before, after = trainer.score_edits(edited=False), trainer.score_edits()
    name = f"{options.data} {options.skip} to {options.skip + len(bench.edits) - 1}"
    print(HEADER)
    print(table_line(f"{name}, before", before))
    print(table_line(f"{name}, after", after, len(trainer.train_dataset), seconds))
    low, high = after["edit_score_ci95"] or (float("nan"),) * 2
    print(f"{after['protocol']} protocol, edit score {low:.1f} to {high:.1f} (95 %); probes: {after['n_probes']}")


if __name__ == "__main__":
    main()
