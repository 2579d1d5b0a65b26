"""
Compare the training speed of `EditTrainer` with stock TRL `SFTTrainer`: same rows, model, LoRA, batch size, precision.

    python examples/benchmarks/training_speed.py --threads 4

The rows are those of 100 CounterFact records for the bench model, or, without the shared data, of the embedded edits
for the embedded model. Stock `SFTTrainer` has its own defaults, then activation checkpointing off. The trainers
take turns; each prints the median of its repeats.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import edit_benchmark


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=edit_benchmark.Path, default=edit_benchmark.ROOT.parent / "shared")
    parser.add_argument("--num_edits", type=int, default=100, help="how many records the rows come from (100)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the rows in each repeat (1)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each trainer (3)")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    return parser.parse_args()


def augmented_rows(options: argparse.Namespace) -> tuple[str | None, Any]:
    """The model's folder (`None`: embedded), and prompt-completion rows of the package's default augmentation."""
    from hf_ftedit import EditDatasetBuilder, load_model, load_tokenizer, read_edits, read_facts
    from hf_ftedit.loading import asset

    if options.shared.is_dir():
        name, edits, pool = edit_benchmark.load(argparse.Namespace(**vars(options), data="counterfact", skip=0))
    else:
        name, pool = None, read_facts(asset("locality_pool.jsonl"))
        edits = read_edits(asset("edits.jsonl"), limit=options.num_edits)
    builder = EditDatasetBuilder(edits, load_model(name), load_tokenizer(name), locality_pool=pool)
    return name, builder.prepared("train").select_columns(["prompt", "completion"])


def contenders(name: str | None, rows: Any) -> dict[str, Callable[..., Any]]:
    """Functions that make each trainer from further settings."""
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from hf_ftedit import EditConfig, EditTrainer, load_model, load_tokenizer

    def maker(trainer: type, config: type, **more: Any) -> Callable[..., Any]:
        def make(**settings: Any) -> Any:
            fixed = {"per_device_train_batch_size": 32, "bf16": False, "save_strategy": "no", "report_to": "none"}
            args = config(learning_rate=1e-3, disable_tqdm=True, logging_steps=1_000_000, **fixed, **more, **settings)
            lora = LoraConfig(
                r=32, lora_alpha=64, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            tokenizer = load_tokenizer(name)
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            model = load_model(name)
            made = trainer(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora)
            made.remove_callback(PrinterCallback)
            return made

        return make

    return {
        "EditTrainer": maker(EditTrainer, EditConfig),
        "SFTTrainer": maker(SFTTrainer, SFTConfig),
        "SFTTrainer, no activation checkpointing": maker(SFTTrainer, SFTConfig, activation_checkpointing=False),
    }


def rows_per_second(make: Callable[..., Any], rows: Any, folder: str, epochs: int) -> float:
    """Rows trained in a second, from the call of `train` to its end."""
    trainer = make(output_dir=folder, num_train_epochs=epochs)
    start = time.perf_counter()
    trainer.train()
    return len(rows) * epochs / (time.perf_counter() - start)


def main() -> None:
    """Warm up, take turns, print a line for each trainer."""
    options = arguments()
    edit_benchmark.quiet()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    name, rows = augmented_rows(options)
    trainers = contenders(name, rows)
    found: dict[str, list[float]] = {label: [] for label in trainers}
    with tempfile.TemporaryDirectory() as folder:
        for make in trainers.values():
            make(output_dir=folder, max_steps=3).train()  # warm-up
        for _ in range(options.repeats):
            for label, make in trainers.items():
                found[label].append(rows_per_second(make, rows, folder, options.epochs))
    medians = {label: statistics.median(speeds) for label, speeds in found.items()}
    print(f"{len(rows)} rows, {options.epochs} epochs, {torch.get_num_threads()} threads, float32")
    print("| trainer | rows/s, median | each repeat | EditTrainer is |\n|---|---|---|---|")
    for label, speeds in found.items():
        ratio = medians["EditTrainer"] / medians[label]
        each = ", ".join(f"{speed:.0f}" for speed in speeds)
        print(f"| {label} | {medians[label]:.0f} | {each} | {ratio:.2f} x |")


if __name__ == "__main__":
    main()
