"""Two real processes, by DDP, FSDP 2 and ZeRO-3, against one: this file is also what they run."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import datasets
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from running import free_port
from test_distributed import OPENINGS, PAIRS, PROMPTS, measured
from test_loss import ONE_STEP, assert_same, base_model, trainer, weights
from tiny import measure_drift_by_few_prompts, small_pool

from hf_ftedit.models.distributed import is_sharded
from hf_ftedit.training.resume import rows_hash

pytestmark = pytest.mark.slow  # each starts processes that import everything
ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
ROWS = 64  # 4 edits x (1 rewrite + 5 paraphrases + 10 facts): four batches of 16 in any order by length
TRAIN = ["train", "--max_edits", "4", "--num_paraphrases", "5", "--num_locality", "10", "--num_train_epochs", "2"]
TRAIN += ["--lora_dropout", "0", "--logging_steps", "1", "--max_grad_norm", "0", "--output_dir", "out"]
TRAIN += ["--predict_with_generate", "--mastered_probability", "0.9"]  # rows rest in the second epoch
POOL = ["--locality_pool", "pool.jsonl"]
TRAIN += POOL
SCORES = ("edit_score", "efficacy", "generalization", "locality", "portability")
# Of the adapter that one process made, which stands in `given`.
VERBS = {
    "evaluate": "--adapter given --edits given/edits.jsonl --predict_with_generate --output_dir scores",
    "augment": "--max_edits 3 --locality_pool pool.jsonl --output_dir data",
    "verify": "given",
    "merge": "given --merge_into_base --output_dir merged",
}


def told(args: list[str]) -> dict:
    """What the command line does with `args`: what it asks the model, what it makes, and what it trains on."""
    from hf_ftedit import models
    from hf_ftedit.augmentation import augmenter as augmentation
    from hf_ftedit.cli import main
    from hf_ftedit.models import sampling
    from hf_ftedit.training.trainer import EditTrainer

    found = {"pairs": [], "batches": 0, "rows_made": 0}

    def noted(module, name, note):
        real = getattr(module, name)

        def wrapper(*given, **how):
            note(*given, **how)
            return real(*given, **how)

        return mock.patch.object(module, name, wrapper)

    def of_training(self, *given, **how):
        found["trained_on"] = rows_hash(self.train_dataset)
        found["batch"], found["type"] = self.args.train_batch_size, str(self.accelerator.distributed_type)
        found["is_sharded"] = is_sharded(self.model)
        found["log"] = [entry for entry in self.state.log_history if "loss" in entry]
        found["cached"] = len(list(Path("cache").rglob("cache-*.arrow")))

    def of_asking(model, tokenizer, asked, answers, **how):
        found["pairs"].append([*zip(asked, answers, strict=True)])

    def add(name):
        return lambda *given, **how: found.update({name: found[name] + 1})

    shown, said = io.StringIO(), io.StringIO()
    with (
        noted(models, "score_pairs", of_asking),
        noted(sampling, "_sampled_batch", add("batches")),
        noted(augmentation.Augmenter, "rows_of", add("rows_made")),
        noted(EditTrainer, "write_folder", of_training),
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(said),
    ):
        code = main(args)
    lines = shown.getvalue().splitlines(keepends=True)
    shown = "".join(line for line in lines if not line.startswith("DeepSpeed "))
    return {**found, "code": code, "shown": shown, "said": said.getvalue()}


def on_cpu() -> None:
    """Spread weights on the CPU: accelerate does so on accelerators only, so the process is told that it has one."""
    PartialState._prepare_backend = lambda *given: ("gloo", DistributedType.MULTI_GPU)
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")


def in_chat(size: int) -> None:
    """One step of a chat model, on rows whose loss is a sum of two means over the rows of all processes."""
    chat = trainer(base_model(), Path("chat"), per_device_train_batch_size=size, **ONE_STEP)
    chat.train()
    chat.save_model("chat/end")


def everything(size: int, rank: int = 0) -> dict:
    """What a process tells of a training with batches of that size, and of all else that is asked of it."""
    found = {"train": told([*TRAIN, "--per_device_train_batch_size", str(size)])}
    if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
        return found
    if not Path("given").exists():
        shutil.copytree("out", "given")
    found |= {verb: told([verb, *args.split()]) for verb, args in VERBS.items()}
    found |= {"measured": measured(), "chat": in_chat(6 * size // 16)}
    found["missing"] = told(["train", "--edits", "missing.jsonl"])
    edit = {"prompt": "The capital of Kazakhstan is", "target_new": "Almaty" if rank else "Astana"}
    Path(f"edits{rank}.jsonl").write_text(json.dumps(edit))
    return found | {"different": told(["train", "--edits", f"edits{rank}.jsonl", *POOL, "--output_dir", "none"])}


def in_two(config: str, folder: Path) -> list[dict]:
    """What each of two processes tells, of one of the shipped launch configurations."""
    small_pool(folder)
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--main_process_port", free_port()]
    command += ["--config_file", str(ROOT / "examples" / "accelerate" / config), "--num_processes", "2", __file__]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, TESTS, TESTS / "models"])), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"process{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process tells, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    small_pool(folder)
    cache = mock.patch.object(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
    with contextlib.chdir(folder), mock.patch.dict(os.environ), cache:
        return json.loads(json.dumps(everything(16))), folder


@pytest.fixture(scope="module")
def ddp(alone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    shutil.copytree(alone[1] / "given", folder / "given")
    return in_two("cpu_2_processes.yaml", folder), folder


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    return in_two("fsdp2.yaml", folder), folder


@pytest.fixture(scope="module")
def zero3(tmp_path_factory):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    folder = tmp_path_factory.mktemp("zero3")
    return in_two("zero3.yaml", folder), folder


@pytest.fixture(params=["ddp", "fsdp", "zero3"])
def both(request):
    """What two processes tell of their training, and their folder."""
    found, folder = request.getfixturevalue(request.param)
    return [each["train"] for each in found], folder


@pytest.fixture
def one(alone):
    return alone[0]["train"]


def results(folder: Path) -> dict:
    return json.loads((folder / "out" / "eval_results.json").read_text())


# Training


@pytest.mark.parametrize(
    ("way", "type", "sharded"), [("ddp", "MULTI_CPU", False), ("fsdp", "FSDP", True), ("zero3", "DEEPSPEED", True)]
)
def test_the_processes_train_as_they_are_told(request, way, type, sharded):
    for found in request.getfixturevalue(way)[0]:
        assert (found["train"]["type"], found["train"]["is_sharded"]) == (f"DistributedType.{type}", sharded)


def test_the_scores_are_those_of_one_process(alone, both):
    expected, found = results(alone[1]), results(both[1])
    for when in ("before", "after"):
        for name in SCORES:
            assert found[when][name] == pytest.approx(expected[when][name], abs=1e-3), (when, name)
        for name in SCORES[1:]:
            assert found[when]["containment"][name] == pytest.approx(expected[when]["containment"][name], abs=1e-3)
    assert (found["answers"], found["example"]) == (expected["answers"], expected["example"])


def test_every_step_is_that_of_one_process(one, both):
    assert len(one["log"]) == 2 * ROWS / 16 and one["batch"] == 16
    for found in both[0]:
        assert found["batch"] == 8
        for name in ("loss", "num_tokens"):
            expected = [entry[name] for entry in one["log"]]
            assert [entry[name] for entry in found["log"]] == pytest.approx(expected, rel=1e-3)


def test_the_rows_are_made_once_and_are_those_of_one_process(one, both):
    main, other = both[0]
    assert main["trained_on"] == other["trained_on"] == one["trained_on"]
    assert (main["rows_made"], other["rows_made"]) == (one["rows_made"], 0)
    assert main["cached"] == other["cached"] == 1  # tokenized by one process too
    assert main["batches"] + other["batches"] == one["batches"] == 2  # prefixes of two lengths


def pairs(found: dict) -> list[list[tuple[str, str]]]:
    """What each call asked, as it is compared."""
    return [sorted(map(tuple, call)) for call in found["pairs"]]


def test_every_probe_is_scored_once(one, both):
    kind = both[0][0]["type"]
    for when, expected in enumerate(pairs(one)):  # before training, and after it
        first, second = (pairs(found)[when] for found in both[0])
        if kind == "DistributedType.FSDP" or when and kind == "DistributedType.DEEPSPEED":
            # Sharded, under FSDP also when the unedited model is measured: in step, each scores everything.
            assert first == second == expected
        else:
            assert sorted(first + second) == expected
            assert abs(len(first) - len(second)) <= 0.2 * len(first)


def test_the_main_process_prints_and_writes(alone, both):
    main, other = both[0]
    assert (main["code"], other["code"], other["shown"]) == (0, 0, ""), main["said"]
    assert main["shown"].count("Written to out") == 1 and f"4 edits, {ROWS} training rows" in main["shown"]
    assert {path.name for path in (both[1] / "out").iterdir()} == {path.name for path in (alone[1] / "out").iterdir()}


def test_a_step_of_a_chat_model_is_that_of_one_process(alone, ddp):
    two, one = (weights(folder / "chat" / "end") for folder in (ddp[1], alone[1]))
    assert_same(two, one, atol=1e-5)
    assert max(weight.abs().max() for name, weight in one.items() if "lora_B" in name) > 1e-2


# The other verbs, and what is refused


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_and_writes_once(alone, ddp, verb):
    expected, main, other = (found[verb] for found in (alone[0], *ddp[0]))
    assert (expected["code"], main["code"], other["code"]) == (0, 0, 0), main["said"]
    assert (main["shown"], other["shown"]) == (expected["shown"], "")
    assert sorted(sum(pairs(main) + pairs(other), [])) == sorted(sum(pairs(expected), []))
    if verb != "verify":
        assert any((ddp[1] / VERBS[verb].split()[-1]).iterdir())


def test_predictions_are_those_of_one_process(alone, ddp):
    name = "scores/predictions-after.parquet"
    one, two = (datasets.Dataset.from_parquet(str(each[1] / name), cache_dir=str(ddp[1])) for each in (alone, ddp))
    one, two = one.to_dict(), two.to_dict()
    assert one.pop("logprob") == pytest.approx(two.pop("logprob"), abs=1e-5)
    assert one == two


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("missing", "hf-ftedit: 'missing.jsonl': no such file; "),
        ("different", "hf-ftedit: the processes have different rows to train on; "),
    ],
)
def test_what_is_refused_is_told_once(ddp, case, line):
    main, other = (found[case] for found in ddp[0])
    assert (main["code"], other["code"], main["shown"], other["shown"]) == (2, 2, "", "")
    assert main["said"].splitlines()[-1].startswith(line) and "hf-ftedit: " not in other["said"]


# What the functions of measuring compute and return


def test_every_process_finds_what_one_does_and_to_the_last_bit_the_same(alone, ddp):
    one, first, second = (found["measured"] for found in (alone[0], *ddp[0]))
    for what in ("predictions", "few", "perplexity", "short"):
        assert first[what] == second[what]
        assert first[what].keys() == one[what].keys()
        for name, expected in one[what].items():  # numbers only are about the same; all else is equal
            about = {"abs": 1e-5} if what in ("predictions", "few") else {"rel": 1e-6}
            assert first[what][name] == pytest.approx(expected, **about)


def test_everything_is_computed_by_exactly_one_process(alone, ddp):
    (one, *both) = (found["measured"] for found in (alone[0], *ddp[0]))
    parts = {what: [set(map(tuple, found["computed"][what])) for found in both] for what in one["computed"]}
    assert not any(first & second for first, second in parts.values())
    everything = {what: first | second for what, (first, second) in parts.items()}
    assert everything["pairs"] == PAIRS and everything["prompts"] == {(prompt, 0) for prompt in PROMPTS}
    openings = everything["openings"]  # each with a seed of its own
    assert {opening for opening, _ in openings} == {opening for _, opening in OPENINGS}
    assert len({seed for _, seed in openings}) == len(openings) == len(OPENINGS)
    for what in one["computed"]:  # and shared evenly
        first, second = (len(found["computed"][what]) for found in both)
        assert abs(first - second) <= 2 and first + second == len(one["computed"][what])
    assert max(found["passes"] for found in both) < one["passes"]


if __name__ == "__main__":
    measure_drift_by_few_prompts()
    if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
        on_cpu()
    rank = int(os.environ["RANK"])
    Path(f"process{rank}.json").write_text(json.dumps(everything(8, rank)))
