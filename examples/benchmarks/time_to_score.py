"""
Time that `EditTrainer` and stock TRL `SFTTrainer` need for many edits, and the edit scores that they reach.

    python examples/benchmarks/time_to_score.py --threads 2

Both edit the same CounterFact records in the bench model. `SFTTrainer` trains the paper's recipe (Gangadhar & Stratos
2024): 16 prefixes-and-rewrite rows and 5 random facts an edit, LoRA of rank 32 on all linear layers, 6 epochs, batches
of 32, learning rate 1e-3, activation checkpointing off. `EditTrainer` has its own defaults but for 3 epochs, rows that
rest once they are mastered, and the flags given. Times are of `train` alone; the same engine measures both models.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import edit_benchmark

OURS = {"num_train_epochs": 3, "mastered_probability": 0.9}


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command's arguments, and the rest, which are flags of `hf-ftedit train`."""
    parser = edit_benchmark.parser_of(__doc__, allow_abbrev=False)
    parser.add_argument("--num_edits", type=int, default=500, help="how many records to edit (500)")
    parser.add_argument("--skip", type=int, default=0, help="how many records to pass over first (0)")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    parser.add_argument("--only", choices=["ours", "stock"], help="run one of the two")
    return parser.parse_known_args()


def stock(bench: edit_benchmark.Bench) -> tuple[Any, int, float]:
    """Scores after the paper's recipe with `SFTTrainer`, its rows, and the seconds of its training."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from hf_ftedit import AugmentationOptions, EditDatasetBuilder, EditOptions, load_model, load_tokenizer, measure

    model, tokenizer = load_model(bench.model), load_tokenizer(bench.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    paper = AugmentationOptions(
        paraphrase_strategy="prefix", num_paraphrases=15, locality_strategy="random", num_locality=5
    )
    builder = EditDatasetBuilder(bench.edits, model, tokenizer, locality_pool=bench.pool, options=paper)
    rows = builder.prepared("train")
    edit_benchmark.check(rows, bench.edits)
    lora = LoraConfig(r=32, lora_alpha=64, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            num_train_epochs=6,
            per_device_train_batch_size=32,
            bf16=False,
            activation_checkpointing=False,
            save_strategy="no",
            **edit_benchmark.SILENT,
        )
        trainer = SFTTrainer(
            model,
            args,
            train_dataset=rows.select_columns(["prompt", "completion"]),
            processing_class=tokenizer,
            peft_config=lora,
        )
        seconds = edit_benchmark.train(trainer)
    return measure(trainer.model, tokenizer, bench.edits, EditOptions()).scores, len(rows), seconds


def main() -> None:
    """Edit by each, and print a line for each."""
    options, flags = arguments()
    edit_benchmark.quiet(options.threads)
    import torch

    bench = edit_benchmark.load(argparse.Namespace(**vars(options), data="counterfact"))
    print(edit_benchmark.HEADER)
    taken = {}
    if options.only != "stock":
        trainer, taken["ours"] = edit_benchmark.edited(bench, flags, **OURS)
        rows = len(trainer.train_dataset)
        print(edit_benchmark.table_line("EditTrainer", trainer.score_edits(), rows, taken["ours"]), flush=True)
    if options.only != "ours":
        scores, count, taken["stock"] = stock(bench)
        print(edit_benchmark.table_line("SFTTrainer, the paper's recipe", scores, count, taken["stock"]), flush=True)
    if len(taken) == 2:
        share = 100 * taken["ours"] / taken["stock"]
        print(f"EditTrainer took {share:.0f} percent of the time, {torch.get_num_threads()} threads, float32")


if __name__ == "__main__":
    main()
