"""
Compare the training speed of `EditTrainer` with stock TRL `SFTTrainer`: same rows, model, LoRA, batch size, precision.

    python examples/benchmarks/training_speed.py --threads 4                    # the bench model, float32 on a CPU
    python examples/benchmarks/training_speed.py --random 8b --num_edits 1000   # a Llama of random weights on a GPU
    python examples/benchmarks/training_speed.py --random 8b --num_edits 1000 --load_in_4bit

The rows are those of CounterFact records for the bench model, or, without the shared data, of the embedded edits for
the embedded model; a model of random weights trains on them too. Stock `SFTTrainer` has its own defaults, then
activation checkpointing off. The trainers take turns; each prints the median of its repeats. Tokens are those of the
rows, without padding and without what a trainer adds. The share is that of 4 x parameters x tokens operations, what a
LoRA needs forward and backward, in the measured matrix-product rate of the same device and precision. Memory is the
GPU's peak.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import edit_benchmark

# The shape of an 8B Llama, and one to try the script with.
SHAPES = {
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 8192,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}


class Run(NamedTuple):
    """One training: rows a second, and the GPU's peak memory in GiB."""

    speed: float
    memory: float


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = edit_benchmark.parser_of(__doc__)
    parser.add_argument("--num_edits", type=int, default=100, help="how many records the rows come from (100)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the rows in each repeat (1)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each trainer (3)")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    parser.add_argument("--random", choices=SHAPES, help="a Llama of random weights and this shape")
    parser.add_argument("--load_in_4bit", action="store_true", help="the model's weights in nf4 (bitsandbytes)")
    return parser.parse_args()


def augmented_rows(options: argparse.Namespace) -> tuple[str | None, Any]:
    """The model's folder (`None`: embedded), and prompt-completion rows of the package's default augmentation."""
    from hf_ftedit import EditDatasetBuilder, load_model, load_tokenizer, read_edits, read_facts
    from hf_ftedit.models.loading import asset

    if options.shared.is_dir():
        name, edits, pool = edit_benchmark.load(argparse.Namespace(**vars(options), data="counterfact", skip=0))
    else:
        name, pool = None, read_facts(asset("locality_pool.jsonl"))
        edits = read_edits(asset("edits.jsonl"), limit=options.num_edits)
    builder = EditDatasetBuilder(edits, load_model(name), load_tokenizer(name), locality_pool=pool)
    return name, builder.prepared("train").select_columns(["prompt", "completion"])


def random_model(shape: str, tokenizer: Any, folder: str) -> str:
    """A folder with a Llama of random weights in bfloat16 and the tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder)
    return folder


def contenders(name: str | None, rows: Any, loading: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """Functions that make each trainer from further settings."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from hf_ftedit import EditConfig, EditTrainer, load_model, load_tokenizer

    def maker(trainer: type, config: type, **more: Any) -> Callable[..., Any]:
        def make(**settings: Any) -> Any:
            fixed = {"learning_rate": 1e-4, "per_device_train_batch_size": 32, "save_strategy": "no"}
            fixed["bf16"] = loading.get("dtype") == "bfloat16"
            args = config(**fixed, **edit_benchmark.SILENT, **more, **settings)
            lora = LoraConfig(
                r=32, lora_alpha=64, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            tokenizer = load_tokenizer(name)
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            model = load_model(name, **loading)
            return trainer(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora)

        return make

    return {
        "EditTrainer": maker(EditTrainer, EditConfig),
        "SFTTrainer": maker(SFTTrainer, SFTConfig),
        "SFTTrainer, no activation checkpointing": maker(SFTTrainer, SFTConfig, activation_checkpointing=False),
    }


def trained(make: Callable[..., Any], rows: Any, folder: str, epochs: int) -> Run:
    """How fast the rows are trained, from the call of `train` to its end."""
    import torch

    trainer = make(output_dir=folder, num_train_epochs=epochs)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = edit_benchmark.train(trainer)
    return Run(len(rows) * epochs / seconds, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan"))


def loading_of(options: argparse.Namespace) -> dict[str, Any]:
    """How the model is loaded: bfloat16 on a GPU that has it, float32 elsewhere, in four bits where asked."""
    from hf_ftedit.training.config import has_bf16

    loading: dict[str, Any] = {"dtype": "bfloat16" if has_bf16() else "float32"}
    if options.load_in_4bit:
        from trl import ModelConfig, get_quantization_config

        loading["quantization_config"] = get_quantization_config(ModelConfig(load_in_4bit=True, **loading))
    return loading


def main() -> None:
    """Warm up, take turns, print a line for each trainer."""
    options = arguments()
    edit_benchmark.quiet(options.threads)
    import torch

    from hf_ftedit import load_model, load_tokenizer

    name, rows = augmented_rows(options)
    tokenizer, loading = load_tokenizer(name), loading_of(options)
    n_tokens = sum(map(len, tokenizer([row["prompt"] + row["completion"] for row in rows])["input_ids"]))
    with tempfile.TemporaryDirectory() as folder:
        if options.random:
            name = random_model(options.random, tokenizer, f"{folder}/model")
        n_parameters = load_model(name, dtype=loading["dtype"]).num_parameters()
        trainers = contenders(name, rows, loading)
        found: dict[str, list[Run]] = {label: [] for label in trainers}
        for make in trainers.values():
            edit_benchmark.train(make(output_dir=folder, max_steps=3))  # warm-up
        for _ in range(options.repeats):
            for label, make in trainers.items():
                found[label].append(trained(make, rows, folder, options.epochs))
    rate = edit_benchmark.matrix_rate(loading["dtype"])
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    precision = f"nf4, computed in {loading['dtype']}" if options.load_in_4bit else loading["dtype"]
    print(
        f"{len(rows)} rows, {n_tokens} tokens, {options.epochs} epochs, {n_parameters / 1e6:,.1f} million parameters; "
        f"{place}, {precision}, {rate / 1e12:.2f} T matrix-product operations a second"
    )
    print(
        "| trainer | rows/s, median | each repeat | EditTrainer is | tokens/s | share of matrix rate | peak GPU GiB |"
    )
    print("|---|---|---|---|---|---|---|")
    medians = {label: statistics.median(run.speed for run in runs) for label, runs in found.items()}
    for label, runs in found.items():
        each = ", ".join(f"{run.speed:.0f}" for run in runs)
        tokens = medians[label] * n_tokens / len(rows)
        cells = [f"{medians[label]:.0f}", each, f"{medians['EditTrainer'] / medians[label]:.2f} x", f"{tokens:,.0f}"]
        memory = max(run.memory for run in runs)
        cells += [f"{4 * n_parameters * tokens / rate:.0%}", f"{memory:.1f}" if memory == memory else "—"]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
