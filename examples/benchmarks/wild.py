"""
Edit a chat model by the WILD protocol, in four ways: not at all, by the package, by stock `SFTTrainer`, by LocFT-BF.

    python examples/benchmarks/wild.py --model_name_or_path MODEL --seeds 0,1,2 --json wild.json --plot wild.png
    python examples/benchmarks/wild.py --model_name_or_path MODEL --data wild_zsre.json --methods ours,locft
    python examples/benchmarks/wild.py --model_name_or_path MODEL --methods ours --front --json front.json
    python examples/benchmarks/wild.py --methods "" --with_runs wild.json front.json --plot wild.png

The protocol (Yang et al. 2025, arXiv 2502.11177): the model's own greedy answer, at most 32 tokens, to its natural
stop. *Rel* asks the edit's prompt, *Gen* its rephrase; *exact*: the answer is the target and ends, *contained*: the
target stands in it. Beside them: near questions of the data that are *kept* (the new target is not said and the old
answer still is) or only *not new* (the new target is not said), the question about two *near names* that the package
makes (the new target is not said), drift in nats a token, perplexity, and the seconds of training alone, and of
loading the model, making rows and training. No method is given other wordings.

*ours*: `EditTrainer` with `chat_template` and its defaults; any flag of `hf-ftedit train` may be added. *stock*:
`SFTTrainer` on the prompts and their targets as chat turns with the end of turn, a LoRA of the same rank, and as many
steps as ours took. *locft*: LocFT-BF (Yang et al. 2025, arXiv 2509.22072), written from its description: the same
turns, all weights of one `mlp.down_proj`, batches of 100, at most 25 epochs, a stop at loss 0.01, no augmentation.
Each peer tries its learning rates (and epochs, or layers) with the first seed; the best by Rel and Gen, all that is
asked for this, is measured whole and shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import edit_benchmark

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_ftedit import EditOptions, EditRecord, Fact, Measurement

METHODS = ("ours", "stock", "locft")
NEAR_NAMES = 2  # asked for each edit
FRONT = ["num_locality=10,20", "num_train_epochs=1,2", "locality_weight=0.5,1,2"]
FIGURES = {
    "rel_exact": "Rel exact",
    "rel_contained": "contained",
    "gen_exact": "Gen exact",
    "gen_contained": "contained",
    "near_kept": "near kept",
    "near_not_new": "not new",
    "near_names": "near names",
    "drift": "drift",
    "perplexity": "perplexity",
    "steps": "steps",
    "train_seconds": "train s",
    "whole_seconds": "whole s",
}
COLORS = {"unedited": "#6b7280", "ours": "#2563eb", "front": "#93c5fd", "stock": "#ea580c", "locft": "#16a34a"}

Run = dict[str, Any]  # `method`, its `flags` and `settings`, `seed`, figures by the names above, and `answers`


class Bench(NamedTuple):
    """What is edited, and by what it is measured."""

    options: argparse.Namespace
    flags: list[str]  # of `hf-ftedit train`, for ours
    edits: list[EditRecord]
    pool: list[Fact] | None
    texts: list[str]  # for perplexity

    def load(self) -> tuple[Any, Any]:
        """The unedited model and its tokenizer."""
        from hf_ftedit import load_model, load_tokenizer

        name = self.options.model_name_or_path
        tokenizer = load_tokenizer(name)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return load_model(name, dtype=self.options.dtype), tokenizer


class Trained(NamedTuple):
    """A trainer that has edited its model, and the seconds that it took."""

    trainer: Any
    train_seconds: float
    whole_seconds: float


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command's arguments, and the rest, which are flags of `hf-ftedit train`."""
    parser = edit_benchmark.parser_of(__doc__, allow_abbrev=False)
    parser.add_argument("--model_name_or_path", help="chat model to edit: Hub id, folder or GGUF file")
    parser.add_argument("--dtype", default="float32", help="precision of its weights (float32)")
    parser.add_argument("--data", default="wild_wikibigedit.json", help="file of edits there, or a whole path")
    parser.add_argument("--limit", type=int, default=30, help="how many edits (30)")
    parser.add_argument("--skip", type=int, default=0, help="how many to pass over first (0)")
    parser.add_argument("--pool", action="store_true", help="the data's other records as locality pool of ours")
    parser.add_argument("--methods", type=listed, default=[*METHODS], help="of ours,stock,locft (all)")
    parser.add_argument("--seeds", type=numbers, default=[0], help="such as 0,1,2 (0)")
    parser.add_argument(
        "--front", nargs="*", metavar="OPTION=V,V", help=f"try all of these ({' '.join(FRONT)}) of ours"
    )
    parser.add_argument("--stock_learning_rates", type=rates, default=[5e-4, 1e-3], help="to try (5e-4,1e-3)")
    parser.add_argument("--stock_batch_size", type=int, default=8, help="rows of a batch (8)")
    parser.add_argument("--stock_steps", type=int, help="optimizer steps; as many as ours if not given")
    parser.add_argument("--stock_epochs", type=rates, default=[], help="passes over the edits instead, to try")
    parser.add_argument("--locft_layers", type=numbers, help="to try; at a fifth, a half and two thirds if not given")
    parser.add_argument("--locft_learning_rates", type=rates, default=[5e-4, 2e-3], help="to try (5e-4,2e-3)")
    parser.add_argument("--locft_batch_size", type=int, default=100, help="rows of a batch (100)")
    parser.add_argument("--locft_epochs", type=float, default=25, help="most passes over the edits (25)")
    parser.add_argument("--threads", type=int, help="PyTorch threads; its own choice if not given")
    parser.add_argument("--with_runs", type=Path, nargs="*", default=[], help="JSON files of runs to show too")
    parser.add_argument("--json", type=Path, help="file for all runs with all answers, written after each run")
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    options, flags = parser.parse_known_args()
    check(parser, options)
    return options, flags


def listed(text: str) -> list[str]:
    """Words of a list with commas."""
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    """Integers of a list with commas."""
    return [int(word) for word in listed(text)]


def rates(text: str) -> list[float]:
    """Learning rates, or epochs, of a list with commas."""
    return [float(word) for word in listed(text)]


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Stop where the arguments do not fit together, before a model is loaded."""
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"--methods {','.join(sorted(unknown))}: choose of {','.join(METHODS)}")
    if (options.methods or options.front is not None) and not options.model_name_or_path:
        parser.error("--model_name_or_path is missing")
    has_length = "ours" in options.methods or options.stock_steps or options.stock_epochs
    if "stock" in options.methods and not has_length:
        parser.error("stock takes as many steps as ours: run ours too, or give --stock_steps or --stock_epochs")


def load(options: argparse.Namespace, flags: list[str]) -> Bench:
    """Edits with questions about near names, and what they are measured by."""
    from hf_ftedit import read_edits, read_facts
    from hf_ftedit.data import read_texts

    data = options.shared / "data"
    records = read_edits(data / options.data)  # a path as it is, where it is absolute
    edits = [with_near_names(record) for record in records[options.skip : options.skip + options.limit]]
    ids = {edit.edit_id for edit in edits}
    pool = read_facts([record for record in records if record.edit_id not in ids]) if options.pool else None
    return Bench(options, flags, edits, pool, read_texts(data / "perplexity_texts.json")[:100])


def with_near_names(record: EditRecord) -> EditRecord:
    """The edit with its question about names that are a letter or a word away."""
    from hf_ftedit.augmentation.near_names import near_names

    if not record.subject or record.subject not in record.prompt:
        return record
    rng = random.Random(record.prompt)  # the same names for every method and seed
    names = near_names(record.subject, NEAR_NAMES, rng)
    return replace(record, near_name_prompts=tuple(record.prompt.replace(record.subject, name) for name in names))


def train_ours(bench: Bench, seed: int, **settings: Any) -> Trained:
    """Edit with `EditTrainer` and its defaults for chat models."""
    from hf_ftedit import EditTrainer
    from hf_ftedit.training import CHAT_LORA

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        flags = [*bench.flags, *as_flags({**settings, "seed": seed})]
        defaults = {"output_dir": folder, "chat_template": True, **CHAT_LORA, **edit_benchmark.SILENT}
        config, lora = edit_benchmark.configs(flags, **defaults)
        model, tokenizer = bench.load()
        trainer = EditTrainer(
            model=model,
            args=config,
            train_dataset=bench.edits,
            processing_class=tokenizer,
            peft_config=lora,
            locality_pool=bench.pool,
        )
        check_rows(trainer, bench.edits)
        return trained(trainer, start)


def as_flags(settings: dict[str, Any]) -> list[str]:
    """Settings as they stand on a command line."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def check_rows(trainer: Any, edits: list[EditRecord]) -> None:
    """Stop where a training row holds a probe."""
    probes = {prompt for edit in edits for prompt in (*edit.paraphrase_prompts, *edit.near_name_prompts)}
    probes |= {probe.prompt for edit in edits for probe in edit.neighborhood_prompts}
    probes -= {edit.prompt for edit in edits}  # which may be another edit's probe
    for text in trainer.processing_class.batch_decode(list(trainer.train_dataset["input_ids"])):
        if held := next((probe for probe in probes if probe in text), None):
            raise SystemExit(f"the training row {text!r} holds the probe {held!r}")


def train_stock(bench: Bench, seed: int, **settings: Any) -> Trained:
    """Train a LoRA on the edits as chat turns with `SFTTrainer`."""
    from peft import LoraConfig

    start = time.perf_counter()
    model, tokenizer = bench.load()
    ours = edit_benchmark.configs(bench.flags)[1]
    size = {"r": ours.r, "lora_alpha": ours.lora_alpha, "lora_dropout": 0.05}
    return sft(
        bench,
        (model, tokenizer, start),
        seed=seed,
        peft_config=LoraConfig(**size, target_modules="all-linear", task_type="CAUSAL_LM"),
        lr_scheduler_type="cosine",
        per_device_train_batch_size=bench.options.stock_batch_size,
        **settings,
    )


def train_locft(bench: Bench, seed: int, *, layer: int, learning_rate: float) -> Trained:
    """LocFT-BF: train all weights of one `mlp.down_proj` on the edits as chat turns, until the loss is 0.01."""
    from transformers import TrainerCallback

    class StopsWhenLearned(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            control.should_training_stop |= (logs or {}).get("loss", 1) < 0.01

    start = time.perf_counter()
    model, tokenizer = bench.load()
    model.requires_grad_(False)
    names = [name for name, _ in model.named_modules() if name.endswith(f"layers.{layer}.mlp.down_proj")]
    if not names:
        raise SystemExit(f"--locft_layers {layer}: the model has no layers.{layer}.mlp.down_proj")
    model.get_submodule(names[0]).weight.requires_grad_(True)
    return sft(
        bench,
        (model, tokenizer, start),
        seed=seed,
        callbacks=[StopsWhenLearned()],
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=bench.options.locft_batch_size,
        num_train_epochs=bench.options.locft_epochs,
        logging_strategy="epoch",
    )


def sft(
    bench: Bench, loaded: tuple[Any, Any, float], *, peft_config: Any = None, callbacks: Any = (), **settings: Any
) -> Trained:
    """Train what was loaded (a model, its tokenizer, when) with `SFTTrainer` on the edits as chat turns."""
    from trl import SFTConfig, SFTTrainer

    from hf_ftedit.training.config import has_bf16

    model, tokenizer, start = loaded
    with tempfile.TemporaryDirectory() as folder:
        common = {"save_strategy": "no", "activation_checkpointing": False, **edit_benchmark.SILENT}
        args = SFTConfig(folder, bf16=has_bf16(), **{**common, **settings})
        trainer = SFTTrainer(
            model,
            args,
            train_dataset=turns(bench.edits),
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[*callbacks],
        )
        return trained(trainer, start)


def turns(edits: list[EditRecord]) -> Dataset:
    """Each edit as a user's turn and an assistant's."""
    from datasets import Dataset

    roles = {"prompt": ("user", "prompt"), "completion": ("assistant", "target_new")}
    return Dataset.from_list(
        [
            {column: [{"role": role, "content": getattr(edit, name)}] for column, (role, name) in roles.items()}
            for edit in edits
        ]
    )


def trained(trainer: Any, start: float) -> Trained:
    """Train, and take the times, of which the whole one began at `start`."""
    seconds = edit_benchmark.train(trainer)
    return Trained(trainer, seconds, time.perf_counter() - start)


TRAINERS = {"ours": train_ours, "front": train_ours, "stock": train_stock, "locft": train_locft}


class Runs:
    """Runs so far, each printed and saved once it is measured."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self._about = bench, {name: getattr(bench.options, name) for name in ("data", "limit", "skip")}
        self._by_label: dict[str, Run] = {}
        for path in bench.options.with_runs:
            file = json.loads(path.read_text(encoding="utf-8"))
            if other := [name for name, value in self._about.items() if file[name] != value]:
                raise SystemExit(f"{path} has runs of other edits: give its --{other[0]} {file[other[0]]}")
            self._by_label |= {label(run): run for run in file["runs"]}
        self._before: Measurement | None = None

    @property
    def all(self) -> list[Run]:
        """The runs in their order."""
        return list(self._by_label.values())

    def unedited(self) -> Any:
        """Measure the unedited model, by whose answers the edited ones are judged; its configuration."""
        model, tokenizer = self.bench.load()
        self._before = self._measured(model, tokenizer)
        self._add({"method": "unedited", "settings": {}, "seed": None, **figures(self._before)})
        return model.config.get_text_config()

    def choose(self, method: str, candidates: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        """Train with each of the settings, and measure the best whole; these settings."""
        chosen = None
        for settings in candidates:
            run, trainer = self._trained(method, settings, seed)
            if len(candidates) > 1:
                run = self._add(run | figures(self._asked(trainer)))
            if chosen is None or best([chosen[0], run]) is run:
                chosen = run, trainer
        run, trainer = chosen
        return self._add(run | figures(self._measured(trainer.model, trainer.processing_class)))["settings"]

    def _trained(self, method: str, settings: dict[str, Any], seed: int) -> tuple[Run, Any]:
        trainer, *seconds = TRAINERS[method](self.bench, seed, **settings)
        flags = {"flags": " ".join(self.bench.flags)} if method in ("ours", "front") else {}
        run = {"method": method, **flags, "settings": settings, "seed": seed, "steps": trainer.state.global_step}
        return run | dict(zip(("train_seconds", "whole_seconds"), seconds, strict=True)), trainer

    def _asked(self, trainer: Any) -> Measurement:
        """No more than Rel and Gen, by which settings are chosen."""
        from hf_ftedit import measure

        edits = [replace(edit, neighborhood_prompts=(), near_name_prompts=()) for edit in self.bench.edits]
        return measure(trainer.model, trainer.processing_class, edits, exam(), drift=False)

    def _measured(self, model: Any, tokenizer: Any) -> Measurement:
        from hf_ftedit import measure

        records = self._before.records if self._before else self.bench.edits
        return measure(model, tokenizer, records, exam(), texts=self.bench.texts, before=self._before)

    def _add(self, run: Run) -> Run:
        self._by_label[label(run)] = run
        print(line(label(run), run), flush=True)
        if path := self.bench.options.json:
            saved = {"model": self.bench.options.model_name_or_path, **self._about, "runs": self.all}
            path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
        return run


def exam() -> EditOptions:
    """How the models are measured."""
    from hf_ftedit import EditOptions

    return EditOptions(chat_template=True, predict_with_generate=True)


def figures(measured: Measurement) -> Run:
    """The figures of a measurement, and what the model said."""
    scores, predictions = measured.scores, measured.predictions
    exact, contained = scores["exact_match"], scores["containment"]
    columns = zip(predictions["kind"], predictions["probe"], predictions["generated"], strict=True)
    return {
        "rel_exact": exact["efficacy"],
        "rel_contained": contained["efficacy"],
        "gen_exact": exact["generalization"],
        "gen_contained": contained["generalization"],
        "near_kept": contained["locality"],
        "near_not_new": not_new(measured),
        "near_names": scores.get("near_names"),
        "drift": scores.get("drift"),
        "perplexity": scores.get("perplexity"),
        "answers": [*dict.fromkeys(columns)],
    }


def not_new(measured: Measurement) -> float | None:
    """Percentage of near questions that are not answered by the edit's new target."""
    from hf_ftedit.evaluation.matching import containment

    new = {record.edit_id: (record.target_new, *record.target_aliases) for record in measured.records}
    names = ("edit_id", "kind", "role", "generated")
    kept: dict[str, list[bool]] = {}
    for edit_id, kind, role, text in zip(*(measured.predictions[name] for name in names), strict=True):
        if (kind, role) == ("neighborhood", "true"):
            kept.setdefault(edit_id, []).append(not containment(text, new[edit_id]))
    return 100 * statistics.fmean(map(statistics.fmean, kept.values())) if kept else None


def candidates(method: str, bench: Bench, config: Any, runs: Runs) -> Iterator[dict[str, Any]]:
    """The settings that a method tries."""
    options = bench.options
    if method == "ours":
        yield {}
    elif method == "stock":
        ours = next((run["steps"] for run in runs.all if run["method"] == "ours"), None)
        epochs = [{"num_train_epochs": number} for number in options.stock_epochs]
        for length in epochs or [{"max_steps": options.stock_steps or ours}]:
            yield from ({"learning_rate": rate, **length} for rate in options.stock_learning_rates)
    else:
        count = config.num_hidden_layers
        for layer in options.locft_layers or sorted({count // 5, count // 2, 2 * count // 3}):
            yield from ({"layer": layer, "learning_rate": rate} for rate in options.locft_learning_rates)


def front(options: list[str]) -> Iterator[dict[str, Any]]:
    """All combinations of the values of options of ours."""
    parts = [option.partition("=")[::2] for option in options or FRONT]
    for values in itertools.product(*(map(value, listed(text)) for _, text in parts)):
        yield dict(zip([name for name, _ in parts], values, strict=True))


def value(text: str) -> Any:
    """A number or a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def best(runs: list[Run]) -> Run:
    """The run with the highest Rel, and of those the highest Gen."""
    return max(runs, key=lambda run: [run[name] or 0 for name in ("rel_exact", "gen_exact", "rel_contained")])


def shown(runs: list[Run]) -> dict[str, list[Run]]:
    """By method (and flags) the runs of its best settings, one for each seed; of the front all."""
    chosen: dict[str, list[Run]] = {}
    for method in dict.fromkeys(method_name(run) for run in runs):
        own = [run for run in runs if method_name(run) == method]
        settings = best([run for run in own if run["seed"] == own[0]["seed"]])["settings"]
        is_front = own[0]["method"] == "front"
        chosen[method] = own if is_front else [run for run in own if run["settings"] == settings]
    return chosen


def method_name(run: Run) -> str:
    """A run's method, with the flags that it was given."""
    return " ".join(filter(None, [run["method"], run.get("flags")]))


def label(run: Run) -> str:
    """A run's name in the table."""
    settings = [f"{name} {value}" for name, value in run["settings"].items() if value is not None]
    seed = [] if run["seed"] is None else [f"seed {run['seed']}"]
    return ", ".join([method_name(run), *settings, *seed])


def table(runs: list[Run]) -> str:
    """What is shown of the runs, a line for each and the means over seeds."""
    lines = [header()]
    for method, own in shown(runs).items():
        lines += [line(label(run), run) for run in own]
        if own[0]["method"] != "front" and len(own) > 1:
            lines.append(line(f"**{method}, mean of {len(own)} seeds**", mean(own)))
    return "\n".join(lines)


def header() -> str:
    """The table's head."""
    return f"| run | {' | '.join(FIGURES.values())} |\n|{'---|' * (len(FIGURES) + 1)}"


def line(name: str, run: Run) -> str:
    """A line of the table; a dash where there is no value."""
    digits = {"drift": 3, "steps": 0, "train_seconds": 0, "whole_seconds": 0}
    values = ((run.get(figure), digits.get(figure, 1)) for figure in FIGURES)
    return f"| {name} | {' | '.join('—' if value is None else f'{value:.{n}f}' for value, n in values)} |"


def mean(runs: list[Run]) -> Run:
    """The means of figures over runs, where all have them."""
    return {
        name: statistics.fmean(run[name] for run in runs)
        for name in FIGURES
        if all(run.get(name) is not None for run in runs)
    }


def plot(runs: list[Run], path: Path) -> None:
    """Generalization against kept near questions: contained and exact, a point for each run, larger ones for means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, (("gen_contained", "contained"), ("gen_exact", "exact")), strict=True):
        for own in shown(runs).values():
            points = [(run["near_kept"], run[kind]) for run in own if None not in (run["near_kept"], run[kind])]
            if points:
                draw(axes, own, points)
        axes.set(xlabel="near questions kept, percent", title=f"Gen, {title}", xlim=(-3, 103), ylim=(-3, 103))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("generalization, percent")
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=len(names[0]), frameon=False, fontsize=8)
    figure.savefig(path)


def draw(axes: Any, runs: list[Run], points: list[tuple[float, float]]) -> None:
    """Draw the points of a method: of the front with their settings, of others with their mean."""
    color = COLORS[runs[0]["method"]]
    axes.scatter(*zip(*points, strict=True), 18, color)
    if runs[0]["method"] != "front":
        middle = [[statistics.fmean(values)] for values in zip(*points, strict=True)]
        axes.scatter(*middle, 90, color, label=method_name(runs[0]), alpha=0.8)
        return
    axes.scatter([], [], 18, color, label=f"ours: {' / '.join(runs[0]['settings'])}")
    for run, point in zip(runs, points, strict=True):
        text = "/".join(map(str, run["settings"].values()))
        axes.annotate(text, point, (3, 3), textcoords="offset points", fontsize=6)


def main() -> None:
    """Measure the unedited model, edit by each method, print a line for each run and then the table."""
    options, flags = arguments()
    edit_benchmark.quiet(options.threads)
    runs = Runs(load(options, flags))
    if options.methods or options.front is not None:
        print(header())
        config = runs.unedited()
        for method in options.methods:
            tried = [*candidates(method, runs.bench, config, runs)]
            for seed in options.seeds:
                tried = [runs.choose(method, tried, seed)]
        for settings in front(options.front) if options.front is not None else ():
            runs.choose("front", [settings], options.seeds[0])
        print()
    print(table(runs.all))
    if options.plot:
        plot(runs.all, options.plot)


if __name__ == "__main__":
    main()
