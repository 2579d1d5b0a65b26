"""
Compare the evaluation engine with a per-record loop and with plain batches, both of which compute all logits.

    python examples/benchmarks/evaluation.py --threads 2                    # 500 CounterFact records, the bench model
    python examples/benchmarks/evaluation.py --threads 2 --random 50304     # random weights, width 768, 4 layers
    python examples/benchmarks/evaluation.py --threads 2 --growth           # cost from 100 to 10,000 records

(a) *loop*: one record at a time, its prompts with both targets as one padded batch, full logits, a log-softmax for
each target token: how the evaluators of ROME and MEMIT work. (b) *plain*: all prompts with their targets in the order
of the records, padded batches of 32, full logits and log-softmax. Each measurement has a process of its own; the
contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edit_benchmark import Path, matrix_rate, parser_of, peak_memory, quiet

if TYPE_CHECKING:
    import torch

    from hf_ftedit import EditRecord
    from hf_ftedit.evaluation.probes import ProbedTarget

LAYERS, WIDTH = 4, 768


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = parser_of(__doc__)
    parser.add_argument("--num_edits", type=int, default=500, help="how many records (500)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each contender (3)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (2)")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"layers of the random model ({LAYERS})")
    parser.add_argument("--random", type=int, metavar="VOCABULARY", help="a model of random weights, so many tokens")
    parser.add_argument("--growth", action="store_true", help="measure 100, 1,000 and 10,000 records instead")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # what a process of its own measures
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def records_of(options: argparse.Namespace) -> list[EditRecord]:
    from hf_ftedit import read_edits

    name = "counterfact_easyedit.json" if options.growth else "counterfact.json"
    return read_edits(options.shared / "data" / name, limit=options.num_edits, skip_invalid=True)


def model_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """The bench model, or one of random weights with its tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from hf_ftedit import load_model, load_tokenizer

    name = str(options.shared / "models" / "counterfact-gpt2-5m")
    tokenizer = load_tokenizer(name)
    if options.random is None:
        return load_model(name), tokenizer
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=options.random, n_embd=WIDTH, n_layer=options.layers, n_head=12)
    return GPT2LMHeadModel(config).eval(), tokenizer


def engine(model: Any, tokenizer: Any, records: list[EditRecord]) -> tuple[list[float], list[bool]]:
    """This package."""
    from hf_ftedit import predict

    predictions = predict(model, tokenizer, records)
    return predictions["logprob"], predictions["match"]


def loop(model: Any, tokenizer: Any, records: list[EditRecord]) -> tuple[list[float], list[bool]]:
    """(a): one record at a time, full logits, one log-softmax a target token."""
    import torch

    logprobs, matches = [], []
    for record in records:
        asked, ids, starts = _encoded(tokenizer, [record])
        with torch.no_grad():
            logits = model(**_batch(ids)).logits
        for row in range(len(asked)):
            total, right = 0.0, True
            for position in range(starts[row], len(ids[row])):
                read = logits[row, position - 1]
                total += torch.log_softmax(read, dim=0)[ids[row][position]].item()
                right = right and read.argmax().item() == ids[row][position]
            logprobs.append(total / (len(ids[row]) - starts[row]))
            matches.append(right)
    return logprobs, matches


def plain(model: Any, tokenizer: Any, records: list[EditRecord], rows: int = 32) -> tuple[list[float], list[bool]]:
    """(b): padded batches in the order of the records, full logits and log-softmax."""
    import torch

    _, ids, starts = _encoded(tokenizer, records)
    logprobs: list[float] = []
    matches: list[bool] = []
    for begin in range(0, len(ids), rows):
        part, first = ids[begin : begin + rows], starts[begin : begin + rows]
        batch = _batch(part)
        with torch.no_grad():
            logits = model(**batch).logits[:, :-1]
        labels = batch["input_ids"][:, 1:]
        chosen = torch.log_softmax(logits, dim=-1).gather(2, labels[..., None])[..., 0]
        place = torch.arange(1, labels.shape[1] + 1)
        wanted = (place >= torch.tensor(first)[:, None]) & (place < torch.tensor([[len(row)] for row in part]))
        logprobs += ((chosen * wanted).sum(1) / wanted.sum(1)).tolist()
        matches += ((logits.argmax(dim=-1) == labels) | ~wanted).all(dim=1).tolist()
    return logprobs, matches


CONTENDERS: dict[str, Callable[..., tuple[list[float], list[bool]]]] = {"engine": engine, "loop": loop, "plain": plain}


def _encoded(tokenizer: Any, records: list[EditRecord]) -> tuple[list[ProbedTarget], list[list[int]], list[int]]:
    """What is asked, its tokens, and where each target begins: by the length of the prompt, as those scripts do it."""
    from hf_ftedit.evaluation.probes import probed_targets

    asked = list(dict.fromkeys(probed_targets(records)))
    ids = tokenizer([f"{row.prompt} {row.target}" for row in asked])["input_ids"]
    starts = [len(row) for row in tokenizer([row.prompt for row in asked])["input_ids"]]
    return asked, ids, starts


def _batch(ids: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    import torch

    length = max(map(len, ids))
    return {
        "input_ids": torch.tensor([row + [0] * (length - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids]),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, peak memory and findings of one contender, in this process."""
    model, tokenizer = model_of(options)
    records = records_of(options)
    run = CONTENDERS[options.only]
    run(model, tokenizer, records[:3])  # warm-up
    before = peak_memory()
    start = time.perf_counter()
    logprobs, matches = run(model, tokenizer, records)
    seconds = time.perf_counter() - start
    rate = matrix_rate()
    return {
        "seconds": seconds,
        "mb": peak_memory() - before,
        "records": len(records),
        "predictions_mb": _predictions_mb(logprobs),
        "share": _operations(model, tokenizer, records) / seconds / rate,
        "logprobs": logprobs,
        "matches": matches,
    }


def _predictions_mb(rows: Sequence[Any]) -> float:
    """What a table of so many predictions takes: nine columns of references, and a float object in two of them."""
    return len(rows) * (9 * 8 + 2 * 24) / (1 << 20)


def _operations(model: Any, tokenizer: Any, records: list[EditRecord]) -> float:
    """
    Operations that cannot be done without: two for each weight and distinct prompt token, head included once a prompt.

    The same number for every contender: what else one computes is its own waste.
    """
    asked, ids, starts = _encoded(tokenizer, records)
    prompts = {row.prompt: start for row, start in zip(asked, starts, strict=True)}
    more = {
        (row.prompt, row.target): len(row_ids) - start - 1
        for row, row_ids, start in zip(asked, ids, starts, strict=True)
    }
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for name, p in model.named_parameters() if "wte" not in name and "wpe" not in name)
    return 2 * (body * (sum(prompts.values()) + sum(more.values())) + head * (len(prompts) + sum(more.values())))


def in_a_process(name: str, num_edits: int) -> dict[str, Any]:
    """What [`measure`] finds in a fresh process."""
    with tempfile.NamedTemporaryFile("r") as file:
        flags = ["--only", name, "--num_edits", str(num_edits), "--out", file.name]  # the last of two holds
        subprocess.run([sys.executable, *sys.argv, *flags], check=True)
        return json.load(file)


def compare(options: argparse.Namespace) -> None:
    """The contenders in turns, and how far their numbers agree."""
    import numpy as np

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):
        for name in CONTENDERS:
            found[name].append(in_a_process(name, options.num_edits))
    first = {name: runs[0] for name, runs in found.items()}
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print("| contender | records/s, median | seconds, each | engine is | peak memory, MB | share of matrix rate |")
    print("|---|---|---|---|---|---|")
    for name, runs in found.items():
        each = ", ".join(f"{run['seconds']:.1f}" for run in runs)
        memory = max(run["mb"] for run in runs)
        share = statistics.median(run["share"] for run in runs)
        speed, ratio = first[name]["records"] / medians[name], medians[name] / medians["engine"]
        print(f"| {name} | {speed:.0f} | {each} | {ratio:.1f} x | {memory:.0f} | {share:.0%} |")
    for name in ("loop", "plain"):
        gap = np.abs(np.array(first["engine"]["logprobs"]) - np.array(first[name]["logprobs"])).max()
        same = first["engine"]["matches"] == first[name]["matches"]
        print(f"engine against {name}: largest difference of a log-probability {gap:.1e}, matches equal: {same}")


def grow(options: argparse.Namespace) -> None:
    """The engine on more and more records."""
    print("| records | seconds | ms a record | peak memory, MB | predictions, MB |\n|---|---|---|---|---|")
    for size in (100, 1_000, 10_000):
        runs = [in_a_process("engine", size) for _ in range(options.repeats)]
        seconds = statistics.median(run["seconds"] for run in runs)
        each, memory = 1000 * seconds / runs[0]["records"], min(run["mb"] for run in runs)
        print(
            f"| {runs[0]['records']} | {seconds:.2f} | {each:.2f} | {memory:.0f} | {runs[0]['predictions_mb']:.1f} |"
        )


def main() -> None:
    """Measure one contender, compare all, or let the records grow."""
    options = arguments()
    quiet(options.threads)
    if options.only:
        options.out.write_text(json.dumps(measure(options)), encoding="utf-8")
    elif options.growth:
        grow(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
