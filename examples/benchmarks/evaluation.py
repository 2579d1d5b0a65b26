"""
Compare the evaluation engine with a per-record loop and with plain batches, both of which compute all logits.

    python examples/benchmarks/evaluation.py --threads 2                    # 500 CounterFact records, the bench model
    python examples/benchmarks/evaluation.py --threads 2 --random 50304     # random weights, width 768, 4 layers
    python examples/benchmarks/evaluation.py --threads 2 --growth           # cost from 100 to 10,000 records

(a) *loop*: one record at a time, its prompts with both targets as one padded batch, full logits, a log-softmax for each
target token: how the evaluators of ROME and MEMIT work. (b) *plain*: all prompts with their targets in the order of the
records, padded batches of 32, full logits and log-softmax. Each measurement has a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edit_benchmark import ROOT, Path, quiet

if TYPE_CHECKING:
    import torch

    from hf_ftedit import EditRecord
    from hf_ftedit.probes import ProbedTarget

LAYERS, WIDTH = 4, 768


def arguments() -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/ and models/")
    parser.add_argument("--num_edits", type=int, default=500, help="how many records (500)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each contender (3)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch threads (2)")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"layers of the random model ({LAYERS})")
    parser.add_argument("--random", type=int, metavar="VOCABULARY", help="a model of random weights, so many tokens")
    parser.add_argument("--growth", action="store_true", help="measure 100, 1,000 and 10,000 records instead")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
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
    from hf_ftedit.probes import probed_targets

    asked = list(dict.fromkeys(probed_targets(records)))
    ids = tokenizer([f"{row.prompt} {row.answer}" for row in asked])["input_ids"]
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
    """Seconds and peak memory of one contender, in this process."""
    import torch

    torch.set_num_threads(options.threads)
    model, tokenizer = model_of(options)
    records = records_of(options)
    run = CONTENDERS[options.only]
    run(model, tokenizer, records[:3])  # warm-up
    before = _peak()
    start = time.perf_counter()
    logprobs, matches = run(model, tokenizer, records)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mb": _peak() - before, "logprob": logprobs, "match": matches, "work": _work(model, tokenizer, records)}


def _peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)
