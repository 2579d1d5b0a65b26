"""
Compare ways to train a chat model on the same rows: token trees, padded rows, and stock TRL `SFTTrainer`.

    python examples/benchmarks/chat_speed.py --model_name_or_path MODEL
    python examples/benchmarks/chat_speed.py --model_name_or_path MODEL --edits edits.jsonl --repeats 5

The rows are those that `hf-ftedit train --chat_template` makes of the edits, by default of ten facts. Batches of eight
are drawn at random, by length, and as `EditTrainer` draws them by default; and each is run in padded rows and in token
trees, where what rows begin with stands once; those of the default also by PyTorch's own kernels, which are others on
some processors. Tokens are those of one epoch, padding included. Forward and backward passes of the first batches are
timed: all contenders take turns, batch by batch, and of each batch the least time of the repeats counts, so that what
else a machine does matters little. `SFTTrainer` learns all rows by likelihood, in batches of its own padding; the
activation checkpointing of its defaults, which takes longer, is left out. It takes a chat model, and so not the
embedded model.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import edit_benchmark

SIZE = 8  # rows of a batch
PLAIN = "token trees, PyTorch's kernels"


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="chat model to edit: Hub id, folder or GGUF file")
    facts = edit_benchmark.ROOT / "examples" / "chat_facts.jsonl"
    parser.add_argument("--edits", default=str(facts), help="edits that the rows are made of (chat_facts.jsonl)")
    parser.add_argument("--num_batches", type=int, default=24, help="batches that are timed, each way (24)")
    parser.add_argument("--repeats", type=int, default=3, help="times that each of them is run (3)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (2)")
    return parser.parse_args()


def trainers(options: argparse.Namespace, folder: str) -> tuple[Any, Any]:
    """`EditTrainer` with the rows of the edits, and stock `SFTTrainer` with the same LoRA."""
    from trl import SFTConfig, SFTTrainer

    from hf_ftedit import EditConfig, EditTrainer, load_model

    settings: dict[str, Any] = {"output_dir": folder, "report_to": "none", "bf16": False}
    args = EditConfig(chat_template=True, **settings)
    ours = EditTrainer(model=options.model_name_or_path, args=args, train_dataset=options.edits)
    stock = SFTTrainer(
        load_model(options.model_name_or_path),
        SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **settings),
        train_dataset=ours.train_dataset.select_columns(["input_ids", "labels"]),
        processing_class=ours.processing_class,
        peft_config=ours.model.peft_config["default"],
    )
    return ours, stock


def drawn(trainer: Any) -> dict[str, list[list[dict[str, Any]]]]:
    """One epoch's batches by each way to draw them."""
    rows = trainer.train_dataset.remove_columns("kind").to_list()
    rng, lengths = random.Random(0), [row["length"] for row in rows]
    orders = {
        "at random": rng.sample(range(len(rows)), len(rows)),
        "by length": sorted(range(len(rows)), key=lengths.__getitem__),
        "by default": list(trainer._get_train_sampler()),
    }
    batches = {
        name: [[rows[row] for row in order[first : first + SIZE]] for first in range(0, len(rows), SIZE)]
        for name, order in orders.items()
    }
    rng.shuffle(batches["by length"])
    return batches


def contenders(ours: Any, stock: Any) -> list[tuple[str, str, Any, list[dict[str, Any]]]]:
    """How batches are drawn, how they are trained, and by which trainer; and the collated batches of an epoch."""
    width, batches, compared = ours.data_collator.tree_width, drawn(ours), list[Any]()
    for name, drawn_so in batches.items():
        for form, size in (("padded rows", 0), ("token trees", width)):
            ours.data_collator.tree_width = size
            compared.append((name, form, ours, [ours.data_collator(rows) for rows in drawn_so]))
    compared.append(("by default", PLAIN, ours, compared[-1][3]))
    collated = [stock.data_collator(rows) for rows in batches["at random"]]
    return [*compared, ("at random", "SFTTrainer", stock, collated)]


def step(trainer: Any, batch: dict[str, Any], form: str) -> None:
    """A forward and a backward pass."""
    with patch("hf_ftedit.training.resume.fast_kernels", nullcontext) if form == PLAIN else nullcontext():
        trainer.training_step(trainer.model, dict(batch), num_items_in_batch=(batch["labels"] != -100).sum())
    trainer.model.zero_grad()


def timed(compared: list[Any], n_batches: int, repeats: int) -> list[float]:
    """Each contender's seconds for the first batches, the least of the repeats of each batch."""
    best = [[float("inf")] * n_batches for _ in compared]
    for _ in range(repeats):
        for place in range(n_batches):
            for seconds, (_, form, trainer, batches) in zip(best, compared, strict=True):
                start = time.perf_counter()
                step(trainer, batches[place], form)
                seconds[place] = min(seconds[place], time.perf_counter() - start)
    return [sum(seconds) for seconds in best]


def main() -> None:
    """Make the rows, take turns, print a line for each contender."""
    options = arguments()
    edit_benchmark.quiet(options.threads)
    import torch

    with tempfile.TemporaryDirectory() as folder:
        ours, stock = trainers(options, folder)
        if not ours.data_collator.tree_width:
            raise SystemExit(f"{options.model_name_or_path} does not read token trees: there is nothing to compare")
        compared = contenders(ours, stock)
        for _, _, trainer, _ in compared:
            trainer.model.train()
        n_batches = min(options.num_batches, len(compared[0][3]) - 1)  # the last one may be smaller
        seconds = timed(compared, n_batches, options.repeats)
    print(f"{len(ours.train_dataset)} rows; timed: {n_batches * SIZE} rows, {torch.get_num_threads()} threads")
    print("| batches drawn | trained as | tokens run | rows/s | against padded rows so drawn |")
    print("|---|---|---|---|---|")
    base = {drawn: time for (drawn, form, *_), time in zip(compared, seconds, strict=True) if form == "padded rows"}
    for (name, form, _, batches), spent in zip(compared, seconds, strict=True):
        tokens = sum(batch.get("trees", batch)["input_ids"].numel() for batch in batches)
        print(f"| {name} | {form} | {tokens:,} | {n_batches * SIZE / spent:.2f} | {base[name] / spent:.2f} x |")


if __name__ == "__main__":
    main()
