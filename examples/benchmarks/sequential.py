"""
Edit one model round after round, and measure after each what became of the edits of all rounds before.

    python examples/benchmarks/sequential.py --plot sequential.png --json sequential.json

Ten rounds of 20 edits of the embedded model, by two ways: each round goes on from the last one's adapter and trains
its edits again (`--adapter`, replay), or trains the new edits alone. The edits are drawn from the facts that the model
knows in the way that its own 120 were; wordings of the probes are never trained.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edit_benchmark

EMBEDDED = Path(__file__).resolve().parents[1] / "embedded"
SEED = 20261123


def drawn(count: int) -> tuple[list[Any], list[Any]]:
    """Edits of the embedded model's facts in a random order, and facts that must stay."""
    sys.path.insert(0, str(EMBEDDED))
    from edit_set import EditSetBuilder
    from recall import Recall, measure_facts
    from statements import read_tables, split_wordings

    from hf_ftedit import load_model, load_tokenizer, read_edits, read_facts

    tables, rng = read_tables(EMBEDDED), random.Random(SEED)
    groups = dict(zip(("trained", "held out"), split_wordings(tables, rng), strict=True))
    print("finding out which facts the model knows", file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()):  # its own table
        known = measure_facts(Recall(load_model(None), load_tokenizer(None)), tables, groups, rng)
    builder = EditSetBuilder(tables, {wording for wording, is_known in known.items() if is_known}, rng)
    records, pool = builder.build(EMBEDDED / "updates.csv", count)
    rng.shuffle(records)
    return read_edits(records), read_facts(pool)


def trained(model: Any, edits: list[Any], pool: list[Any], folder: Path, **settings: Any) -> Any:
    """A trainer that has edited `model` with the settings that suit it."""
    from hf_ftedit import EditTrainer, asset, load_tokenizer

    defaults = {"output_dir": str(folder), **edit_benchmark.SILENT, **settings}
    config, lora = edit_benchmark.configs(["--config", asset("train.yaml")], **defaults)
    goes_on = config.adapter or hasattr(model, "peft_config")
    trainer = EditTrainer(
        model,
        config,
        train_dataset=edits,
        processing_class=load_tokenizer(None),
        peft_config=None if goes_on else lora,
        locality_pool=pool,
    )
    edit_benchmark.train(trainer)
    return trainer


def rounds(parts: list[list[Any]], pool: list[Any], *, replay: bool) -> list[list[dict[str, Any]]]:
    """After each round, the scores of the edits of each round so far."""
    from hf_ftedit import load_model

    found = []
    model: Any = load_model(None)
    with tempfile.TemporaryDirectory() as name:
        for number, part in enumerate(parts):
            start, folder = time.perf_counter(), Path(name) / f"round-{number + 1}"
            last = {"adapter": str(Path(name) / f"round-{number}")} if replay and number else {}
            trainer = trained(load_model(None) if replay else model, part, pool, folder, **last)
            model, seconds = trainer.model, time.perf_counter() - start
            if replay:
                trainer.save_model(str(folder))
            found.append([trainer.score_edits(earlier) for earlier in parts[: number + 1]])
            print(line(f"{number + 1}, {'replay' if replay else 'new edits alone'}", found[-1], seconds), flush=True)
    return found


def line(name: str, scores: list[dict[str, Any]], seconds: float) -> str:
    """A line of the table: the first round's edits, those of all rounds, and those of this round."""
    first, new = scores[0], scores[-1]
    columns = edit_benchmark.COLUMNS
    mean = {name: mean_of(scores, name) for name in columns}
    parts = (" / ".join(f"{part[name]:.1f}" for name in columns) for part in (first, mean, new))
    return f"| {name} | {seconds:.0f} | {' | '.join(parts)} |"


def plot(results: dict[str, list[list[dict[str, Any]]]], path: Path) -> None:
    """For each way a panel: scores of the first round's edits and of all, after each round."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), dpi=110, layout="constrained")
    for axes, (way, found) in zip(
        figure.subplots(1, len(results), sharey=True, squeeze=False)[0], results.items(), strict=True
    ):
        after = range(1, len(found) + 1)
        lines = {
            "round 1, efficacy": ([scores[0]["efficacy"] for scores in found], "#2563eb", "o-"),
            "round 1, edit score": ([scores[0]["edit_score"] for scores in found], "#2563eb", "s--"),
            "all rounds, efficacy": ([mean_of(scores, "efficacy") for scores in found], "#ea580c", "o-"),
            "all rounds, edit score": ([mean_of(scores, "edit_score") for scores in found], "#ea580c", "s--"),
            "all rounds, locality": ([mean_of(scores, "locality") for scores in found], "#16a34a", "^-"),
        }
        for label, (values, color, style) in lines.items():
            axes.plot(after, values, style, color=color, label=label, markersize=4, linewidth=1.4)
        axes.set(title=way, xlabel="after round", ylim=(0, 103), xticks=after)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    figure.axes[0].set_ylabel("percent")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path)


def mean_of(scores: list[dict[str, Any]], name: str) -> float:
    """A score's mean over rounds of one size."""
    return sum(part[name] for part in scores) / len(scores)


def main() -> None:
    """Edit by both ways, print a line for each round, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how many rounds (10)")
    parser.add_argument("--num_edits", type=int, default=20, help="edits of a round (20)")
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    parser.add_argument("--json", type=Path, help="file for all scores of all rounds after each round")
    parser.add_argument("--only", choices=["replay", "alone"], help="one of the two ways")
    options = parser.parse_args()
    edit_benchmark.quiet()
    edits, pool = drawn(options.rounds * options.num_edits)
    parts = [edits[start : start + options.num_edits] for start in range(0, len(edits), options.num_edits)]
    print("edit score / efficacy / generalization / locality of the edits of …")
    print("| after round | s | round 1 | all rounds, mean | this round |\n|---|---|---|---|---|")
    results = {}
    for way, name in (("replay", "with replay"), ("alone", "new edits alone")):
        if options.only in (None, way):
            results[name] = rounds(parts, pool, replay=way == "replay")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
