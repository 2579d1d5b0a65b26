"""Runs that are killed, stopped, or run out of disk: they go on, and end with the very adapter of a whole run."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import transformers
from tiny_edits import EDITS, config, editor, lora

from hf_ftedit import EditError
from hf_ftedit.cli.app import main
from hf_ftedit.cli.arguments import resume_wish, with_words
from hf_ftedit.hub.folder import sha256
from hf_ftedit.training.checkpoints import (
    ASIDE,
    RUN_FILE,
    checkpoints_of,
    newest_checkpoint,
    problem_of,
    require_place,
)
from hf_ftedit.training.signals import Stopped, deferred, stoppable, wished
from hf_ftedit.training.step_guard import StepGuard

HELPER = Path(__file__).parents[1] / "killed.py"
ROOT = HELPER.parent.parent
TRAIN = ["train", "--max_edits", "2", "--num_paraphrases", "5", "--num_locality", "8", "--lora_r", "8"]
TRAIN += ["--num_train_epochs", "2", "--per_device_train_batch_size", "4"]
OFTEN = [*TRAIN, "--save_strategy", "steps", "--save_steps", "3", "--save_total_limit", "3", "--output_dir"]
RESUME = "--resume_from_checkpoint"
KILL, TERM = int(signal.SIGKILL), int(signal.SIGTERM)
STEPS = 14  # 2 edits of 1 + 5 + 8 rows, by 4, twice


def ran(folder, chains, program=(sys.executable, str(HELPER))):
    """What `killed.py` tells of the runs of each chain."""
    (folder / "chains.json").write_text(json.dumps(chains))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env["HF_DATASETS_CACHE"] = str(folder / "cache")
    command = [*program, "chains.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def finished(folder):
    """SHA-256 of every file of a finished folder."""
    return {path.name: sha256(path) for path in Path(folder).iterdir() if path.is_file()}


def lines(text):
    """What a run said on standard error, without progress bars and the remarks of libraries."""
    return [
        line for line in text.splitlines() if re.match(r"hf-ftedit: |Going on|.* is passed over|.* holds no", line)
    ]


# Killed and stopped, for real.

MOMENTS = {
    "augmentation": {"at": "hf_ftedit.augmentation.augmenter.Augmenter.rows_of", "call": 2, "signal": KILL},
    "second epoch": {"at": "hf_ftedit.training.trainer.EditTrainer.training_step", "call": 11, "signal": KILL},
    "writing a checkpoint": {"at": "torch.save", "call": 5, "signal": KILL},
    "moving a checkpoint": {"at": "hf_ftedit.training.resumable.move_in", "call": 3, "signal": KILL},
    "evaluation": {"at": "hf_ftedit.training.trainer.measure", "call": 2, "signal": KILL},
    "moving the folder in": {"at": "os.replace", "call": 3, "signal": KILL},
    "asked to stop": {"at": "hf_ftedit.training.trainer.EditTrainer.training_step", "call": 10, "signal": TERM},
    "asked to stop at an epoch's end": {
        "at": "hf_ftedit.training.trainer.EditTrainer.training_step",
        "call": 7,
        "signal": TERM,
    },
    "asked to stop at the end": {
        "at": "hf_ftedit.training.trainer.EditTrainer.training_step",
        "call": STEPS,
        "signal": int(signal.SIGINT),
    },
    "asked to stop in the saving": {"at": "hf_ftedit.hub.folder.scores_plot", "call": 1, "signal": TERM},
}


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))"
FULL = {  # beyond that limit a write fails as on a full disk, in Python, PyTorch and safetensors
    "weights": {"at": "hf_ftedit.training.trainer.EditTrainer.training_step", "call": 5, "code": LIMIT},
    "optimizer": {"at": "torch.save", "call": 4, "code": LIMIT},
    "folder": {"at": "hf_ftedit.training.trainer.save_edit_folder", "call": 1, "code": LIMIT},
}
FULL_CACHE = {  # Arrow's own error, which `datasets` wraps into its
    "at": "datasets.arrow_writer.ArrowWriter.finalize",
    "code": "raise OSError(28, 'No space left on device')",
}
OTHER_CACHE = "import datasets; datasets.config.HF_DATASETS_CACHE = 'other-cache-{}'"


def place_of(moment):
    return moment.replace(" ", "-").replace("'", "")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Every moment's run and its going on; the folder they are in."""
    folder = tmp_path_factory.mktemp("ends")
    chains = {"whole": [{"args": [*OFTEN, "whole"]}]}
    for moment, at in (MOMENTS | FULL).items():
        place = place_of(moment)
        args = [*TRAIN, "--output_dir", place] if "asked to stop" in moment else [*OFTEN, place]
        # What another run kept of its rows would spare the augmentation, which is to be killed.
        own = OTHER_CACHE.format(1) if moment == "augmentation" else ""
        chains[moment] = [{"args": args, "setup": own, **at}, {"args": [*args, RESUME], "setup": own}]
    chains["rows"] = [{"args": [*OFTEN, "rows"], "setup": OTHER_CACHE.format(2), **FULL_CACHE}]
    workers = [*TRAIN, "--dataloader_num_workers", "2", "--output_dir", "workers"]
    to_all = {"at": MOMENTS["asked to stop"]["at"], "call": 10, "code": "os.killpg(0, 2)", "setup": "os.setpgrp()"}
    chains["workers"] = [{"args": workers, **to_all}, {"args": [*workers, RESUME]}]
    augment = ["augment", *TRAIN[1:7], "--output_dir"]
    chains["augment"] = [
        {"args": [*augment, "stopped"], "at": "datasets.Dataset.to_parquet", "call": 2, "signal": TERM},
        {"args": [*augment, "full"], "at": "datasets.Dataset.to_parquet", "call": 2, "code": FULL_CACHE["code"]},
    ]
    steep = ["--learning_rate", "1e30", "--max_grad_norm", "0"]
    chains["no number"] = [{"args": [*OFTEN, "no-number", *steep]}]
    return folder, ran(folder, chains)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_ends_with_the_files_of_a_whole_one(ends, moment):
    folder, ended = ends
    stopped, resumed = ended[moment]
    place = folder / place_of(moment)
    wanted = MOMENTS[moment]["signal"]
    assert stopped["code"] == (-KILL if wanted == KILL else 128 + wanted), stopped["err"]
    assert resumed["code"] == 0, resumed["err"]
    assert finished(place) == finished(folder / "whole")
    assert not [name for name in names(place) if name.startswith(".")]
    assert not [name for name in names(folder) if name.startswith(f".hf_ftedit-{place.name}-")]


def test_a_killed_run_says_where_it_goes_on(ends):
    folder, ended = ends
    said = {moment: lines(ended[moment][1]["err"]) for moment in MOMENTS}
    start = " holds no complete checkpoint: training starts from the beginning"
    assert said["augmentation"] == ["augmentation" + start]
    assert said["second epoch"] == ["Going on from second-epoch/checkpoint-9"]
    assert said["writing a checkpoint"] == ["Going on from writing-a-checkpoint/checkpoint-3"]
    assert said["moving a checkpoint"] == ["Going on from moving-a-checkpoint/checkpoint-6"]
    assert said["evaluation"] == [f"Going on from evaluation/checkpoint-{STEPS}"]
    assert [path.name for path in checkpoints_of(folder / "whole")] == [
        f"checkpoint-{step}" for step in (9, 12, STEPS)
    ]


@pytest.mark.parametrize(
    ("moment", "step"),
    [("asked to stop", 10), ("asked to stop at an epoch's end", 7), ("asked to stop at the end", STEPS)],
)
def test_a_run_that_was_asked_to_stop_saves_the_step(ends, moment, step):
    _, ended = ends
    place = place_of(moment)
    stopped, resumed = ended[moment]
    name = signal.Signals(MOMENTS[moment]["signal"]).name
    assert lines(stopped["err"]) == [
        f"hf-ftedit: {name}: saving at the end of this step",
        f"hf-ftedit: stopped by {name} at step {step}; saved in {place}/checkpoint-{step}; "
        "add --resume_from_checkpoint to go on",
    ]
    assert "Traceback" not in stopped["err"]
    assert lines(resumed["err"]) == [f"Going on from {place}/checkpoint-{step}"]


def test_after_training_the_last_step_is_saved(ends):
    stopped, resumed = ends[1]["asked to stop in the saving"]
    place = f"asked-to-stop-in-the-saving/checkpoint-{STEPS}"
    assert lines(stopped["err"]) == [
        f"hf-ftedit: stopped by SIGTERM at step {STEPS}; saved in {place}; add --resume_from_checkpoint to go on"
    ]
    assert "Traceback" not in stopped["err"]
    assert lines(resumed["err"]) == [f"Going on from {place}"]


def test_a_signal_of_the_terminal_leaves_the_loaders_workers_at_work(ends):
    folder, ended = ends
    stopped, resumed = ended["workers"]
    assert stopped["code"] == 128 + signal.SIGINT and "Traceback" not in stopped["err"], stopped["err"]
    assert "at step 10; saved in workers/checkpoint-10" in lines(stopped["err"])[-1]
    assert resumed["code"] == 0 and finished(folder / "workers") == finished(folder / "whole")


@pytest.mark.parametrize(("case", "kept"), [("weights", 3), ("optimizer", 3), ("folder", STEPS)])
def test_a_disk_that_fills_up_costs_a_line(ends, case, kept):
    folder, ended = ends
    failed, resumed = ended[case]
    assert failed["code"] == 2 and "Traceback" not in failed["err"], failed["err"]
    (line,) = lines(failed["err"])
    where = folder / "folder" if case == "folder" else Path(case, "checkpoint-6")
    assert line.startswith(f"hf-ftedit: {where}: File too large; free some space")
    assert resumed["code"] == 0, resumed["err"]
    assert lines(resumed["err"]) == [f"Going on from {case}/checkpoint-{kept}"]
    assert finished(folder / case) == finished(folder / "whole")
    assert not [name for name in names(folder / case) if name.startswith(".")]


def test_a_dataset_is_written_whole_or_not_at_all(ends):
    folder, ended = ends
    stopped, full = ended["augment"]
    assert (stopped["code"], full["code"]) == (128 + TERM, 2)
    assert lines(stopped["err"]) == ["hf-ftedit: stopped by SIGTERM"]
    (line,) = lines(full["err"])
    assert line.startswith(f"hf-ftedit: {folder / 'full'}: No space left on device; ")
    assert not [name for name in names(folder) if name.startswith(("stopped", "full", ".hf_ftedit"))]


def test_a_cache_on_a_full_disk_costs_a_line(ends):
    (failed,) = ends[1]["rows"]
    assert failed["code"] == 2 and "Traceback" not in failed["err"], failed["err"]
    (line,) = lines(failed["err"])
    assert "other-cache-2: No space left on device" in line


def test_a_loss_that_is_no_number_costs_a_line(ends):
    (failed,) = ends[1]["no number"]
    assert failed["code"] == 2 and "Traceback" not in failed["err"], failed["err"]
    (line,) = lines(failed["err"])
    assert re.match(r"hf-ftedit: step \d+: the loss is ", line)


def test_a_disk_that_is_full(tmp_path):
    """A file system of a few megabytes, in a name space of its own."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    (tmp_path / "disk").mkdir()
    mount = "mount -t tmpfs -o size=4m none disk"
    if shutil.which("unshare") is None or subprocess.run([*own, "sh", "-c", mount], cwd=tmp_path).returncode:
        pytest.skip("no file system can be mounted here")
    args = [*OFTEN, "disk/out"]
    grow = "os.system('mount -o remount,size=200m disk')"
    runs = [{"args": args}, {"args": [], "setup": "print(os.listdir('disk/out'))"}]
    runs += [{"args": [*args, RESUME], "setup": grow}, {"args": [*args, RESUME]}]
    program = [*own, "sh", "-c", f'{mount} && exec "{sys.executable}" "{HELPER}" "$0"']
    full, held, grown, complete = ran(tmp_path, {"disk": runs}, program=program)["disk"]
    assert (full["code"], grown["code"], complete["code"]) == (2, 0, 0), (full, grown)
    (line,) = lines(full["err"])
    assert re.match(r"hf-ftedit: disk/out/checkpoint-\d+: No space left on device; free some space", line)
    left = re.findall(r"'([^']+)'", held["out"].splitlines()[0])
    assert left and all(name.startswith("checkpoint-") for name in left)
    assert f"disk/out/{max(left)}" in lines(grown["err"])[0]
    assert complete["out"] == "disk/out is complete: nothing to resume; hf-ftedit push shares it\n"


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_go_on(tmp_path):
    """One of them is asked to stop; then both are killed."""
    config = ROOT / "examples" / "accelerate" / "cpu_2_processes.yaml"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env["HF_DATASETS_CACHE"] = str(tmp_path / "cache")

    def launched(args, **run):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        (tmp_path / "run.json").write_text(json.dumps({"args": args, **run}))
        command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--main_process_port", port]
        command += ["--config_file", str(config), str(HELPER), "--alone", "run.json"]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)

    step = {"at": "hf_ftedit.training.trainer.EditTrainer.training_step", "rank": "1"}
    assert launched([*OFTEN, "whole"]).returncode == 0
    stopped = launched([*OFTEN, "part"], call=2, signal=TERM, **step)
    (wish,) = lines(stopped.stderr)[:1]
    assert wish == "hf-ftedit: SIGTERM: saving at the end of this step"
    (folder,) = checkpoints_of(tmp_path / "part")
    assert f"stopped by SIGTERM at step {folder.name[11:]}; saved in part/{folder.name};" in stopped.stderr
    assert launched([*OFTEN, "part", RESUME], call=5, signal=KILL, **step).returncode != 0
    last = checkpoints_of(tmp_path / "part")[-1]
    assert last != folder and problem_of(last) is None
    full = launched([*OFTEN, "part", RESUME], at="torch.save", call=1, code=LIMIT, rank="0")
    assert full.returncode != 0
    assert "File too large" in full.stderr and "RuntimeError" not in full.stderr  # of any of them
    resumed = launched([*OFTEN, "part", RESUME])
    assert lines(resumed.stderr) == [f"Going on from part/{last.name}"]
    assert finished(tmp_path / "part") == finished(tmp_path / "whole")


# In one process: what going on depends on.


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items() if value.is_floating_point()}


def settings(**more):
    return {"per_device_train_batch_size": 2, "num_locality": 4, "save_strategy": "steps", "save_steps": 1, **more}


RUNS = {
    "by length": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "random": {"train_sampling_strategy": "random"},
    "stopped by max_steps": {"max_steps": 11},
    "best": {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "efficacy",
    },
    "whole model": {"full_finetune": True, "learning_rate": 1e-3},
}


@pytest.mark.parametrize("run", RUNS)
def test_going_on_from_any_step_gives_the_same_weights(base, tokenizer, tmp_path, run):
    how = settings(num_train_epochs=2, **RUNS[run])
    whole = editor(base, tokenizer, config(tmp_path / "whole", **how))
    whole.train()
    expected = weights(whole)
    checkpoints = checkpoints_of(tmp_path / "whole")
    assert len(checkpoints) == whole.state.max_steps and all(problem_of(path) is None for path in checkpoints)
    for checkpoint in checkpoints[:: len(checkpoints) // 4] + checkpoints[-1:]:
        again = editor(base, tokenizer, config(tmp_path / "whole", **how))
        again.train(resume_from_checkpoint=str(checkpoint))
        assert again.state.global_step == whole.state.max_steps
        assert again.state.best_metric == whole.state.best_metric
        found = weights(again)
        assert all(torch.equal(found[name], expected[name]) for name in expected), checkpoint.name


@pytest.fixture
def begun(base, tokenizer, tmp_path):
    """A trainer with a run of five steps behind it, of which each is saved."""
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    trainer.train()
    return trainer


def test_a_checkpoint_holds_no_pickle_of_settings_and_no_place(begun, tmp_path):
    for checkpoint in checkpoints_of(tmp_path / "out"):
        assert {RUN_FILE, "adapter_model.safetensors", "optimizer.pt", "trainer_state.json"} <= set(names(checkpoint))
        assert "training_args.bin" not in names(checkpoint)
        assert str(tmp_path) not in (checkpoint / RUN_FILE).read_text()
    assert names(tmp_path / "out") == [f"checkpoint-{step}" for step in range(1, 6)]


def cut(path, size=100):
    path.write_bytes(path.read_bytes()[:-size])


DAMAGE = {
    "adapter_model.safetensors is cut off or damaged": lambda folder: cut(folder / "adapter_model.safetensors", 1),
    "adapter_model.safetensors or model.safetensors is missing": lambda folder: os.unlink(
        folder / "adapter_model.safetensors"
    ),
    "trainer_state.json is missing": lambda folder: (folder / "trainer_state.json").unlink(),
    "trainer_state.json is cut off or damaged": lambda folder: cut(folder / "trainer_state.json", 5),
    "optimizer.pt is missing": lambda folder: (folder / "optimizer.pt").unlink(),
    "optimizer.pt is cut off or damaged": lambda folder: cut(folder / "optimizer.pt"),
    "scheduler.pt is cut off or damaged": lambda folder: (folder / "scheduler.pt").write_bytes(b""),
    "rng_state.pth is missing": lambda folder: (folder / "rng_state.pth").unlink(),
    "it is marked as incomplete": lambda folder: (folder / "checkpoint-is-incomplete.txt").touch(),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_partial_checkpoint_is_passed_over_and_named(begun, tmp_path, problem):
    last = tmp_path / "out" / "checkpoint-5"
    DAMAGE[problem](last)
    assert problem_of(last) == problem
    assert newest_checkpoint(tmp_path / "out") == (tmp_path / "out" / "checkpoint-4", {str(last): problem})
    with pytest.raises(EditError, match=rf"checkpoint-5': {re.escape(problem)}; give a complete checkpoint folder"):
        begun.train(resume_from_checkpoint=str(last))


def test_going_on_tells_what_it_passes_over_and_mends_it(begun, base, tokenizer, tmp_path, caplog):
    expected = sha256(tmp_path / "out" / "checkpoint-5" / "adapter_model.safetensors")
    cut(tmp_path / "out" / "checkpoint-5" / "adapter_model.safetensors")
    (tmp_path / "out" / ".hf_ftedit-out-abcd_123").mkdir()
    (tmp_path / "out" / ASIDE / "checkpoint-6").mkdir(parents=True)
    again = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    with caplog.at_level("INFO", logger="hf_ftedit"):
        again.train(resume_from_checkpoint=True)
    assert caplog.messages == [
        f"{tmp_path / 'out' / 'checkpoint-5'} is passed over: adapter_model.safetensors is cut off or damaged",
        f"Going on from {tmp_path / 'out' / 'checkpoint-4'}",
    ]
    assert sha256(tmp_path / "out" / "checkpoint-5" / "adapter_model.safetensors") == expected
    assert names(tmp_path / "out") == [f"checkpoint-{step}" for step in range(1, 6)]


def test_without_a_checkpoint_going_on_starts_from_the_beginning(base, tokenizer, tmp_path, caplog):
    trainer = editor(base, tokenizer, config(tmp_path / "out", max_steps=1))
    with caplog.at_level("INFO", logger="hf_ftedit"):
        trainer.train(resume_from_checkpoint=True)
    assert caplog.messages == [f"{tmp_path / 'out'} holds no complete checkpoint: training starts from the beginning"]
    assert trainer.state.global_step == 1


OTHERS = {
    r"learning_rate was 0\.01, and is 0\.001 here": {"learning_rate": 1e-3},
    r"gradient_accumulation_steps was 1, and is 2 here": {"gradient_accumulation_steps": 2},
    r"its training rows are others": {"seed": 42, "edits_left_out": 1},
    r"lora_r was 32, and is 4 here": {"peft_config": lora(lora_dropout=0.05, lora_alpha=64)},
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(begun, base, tokenizer, tmp_path, difference):
    more = dict(OTHERS[difference])
    edits = EDITS[more.pop("edits_left_out", 0) :]
    given = {"peft_config": more.pop("peft_config")} if "peft_config" in more else {}
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5, **more)), edits, **given)
    with pytest.raises(
        EditError, match=f"^checkpoint '.*checkpoint-5' was made with other settings: {difference}; resume with"
    ):
        trainer.train(resume_from_checkpoint=True)


def test_what_only_measures_may_change(begun, base, tokenizer, tmp_path):
    how = settings(max_steps=5, protocol="accuracy", eval_tokens_per_batch=100)
    trainer = editor(base, tokenizer, config(tmp_path / "out", **how))
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 5


def test_a_checkpoint_that_tells_of_no_run_is_taken(begun, base, tokenizer, tmp_path, caplog):
    (tmp_path / "out" / "checkpoint-5" / RUN_FILE).unlink()
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    trainer.train(resume_from_checkpoint=True)
    assert "has no edit_run.json" in caplog.text


@pytest.mark.parametrize(("limit", "kept"), [(1, [1]), (2, [1, 5]), (3, [1, 4, 5])])
def test_old_checkpoints_go_but_never_the_best_one(base, tokenizer, tmp_path, limit, kept):
    how = settings(max_steps=5, save_total_limit=limit, eval_strategy="steps", eval_steps=1, num_locality=0)
    how |= {"locality_strategy": "none", "load_best_model_at_end": limit > 1, "learning_rate": 0.0}
    how |= {"metric_for_best_model": "efficacy"}  # the same at every step: the first one stays the best
    trainer = editor(base, tokenizer, config(tmp_path / "out", **how))
    trainer.train()
    found = [int(path.name.partition("-")[2]) for path in checkpoints_of(tmp_path / "out")]
    assert found == kept
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-1")
    for path in checkpoints_of(tmp_path / "out"):
        state = json.loads((path / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "out" / "checkpoint-1")


def test_a_best_checkpoint_that_is_gone_is_told(base, tokenizer, tmp_path):
    how = settings(max_steps=3, learning_rate=0.0, **RUNS["best"] | {"metric_for_best_model": "efficacy"})
    editor(base, tokenizer, config(tmp_path / "out", **how)).train()
    (tmp_path / "out").rename(tmp_path / "moved")
    again = editor(base, tokenizer, config(tmp_path / "moved", **how))
    again.train(resume_from_checkpoint=True)
    assert again.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-1")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-1")
    with pytest.raises(
        EditError, match="checkpoint-1, the best checkpoint so far, cannot be used: there is no such folder; put it"
    ):
        editor(base, tokenizer, config(tmp_path / "moved", **how)).train(resume_from_checkpoint=True)


def test_more_state_is_kept_for_going_on(base, tokenizer, tmp_path, monkeypatch):
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=2)))
    trainer.training_state = lambda: {"losses": torch.arange(3.0), "step": trainer.state.global_step}
    trainer.train()
    again, found = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=2))), []
    again.load_training_state = found.append
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert found[0]["step"] == 1 and torch.equal(found[0]["losses"], torch.arange(3.0))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "out"
    few = ["train", "--max_edits", "2", "--num_paraphrases", "1", "--num_locality", "1", "--num_train_epochs", "1"]
    assert main([*few, "--output_dir", str(folder)]) == 0
    return folder, [*few, "--output_dir", str(folder), RESUME]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], None),
        (["--max_edits", "1"], r"other edits: '[a-z_-]+' is in one of them only"),
        (["--max_edits", "3"], r"other edits: '[a-z_-]+' is in one of them only"),
        (["--num_train_epochs", "2"], r"other settings: num_train_epochs was 1\.0, and is 2\.0 here"),
        (["--learning_rate", "1e-3"], r"other settings: learning_rate was 0\.0015, and is 0\.001 here"),
        (["--lora_r", "4"], r"other settings: lora_r was 32, and is 4 here"),
        (["--full_finetune"], r"other settings: full_finetune was False, and is True here"),
    ],
)
def test_a_finished_run_is_not_taken_for_another(finished_run, flags, told, capsys):
    folder, args = finished_run
    code = main([*args, *flags])
    shown = capsys.readouterr()
    if told is None:
        assert code == 0 and "is complete: nothing to resume" in shown.out
    else:
        assert code == 2
        assert re.search(f"holds the finished run of {told}; give another --output_dir\n$", shown.err), shown.err


def test_a_finished_run_after_an_adapter_is_known_again(finished_run, tmp_path, capsys):
    """The adapter is given by its path, and the recipe has its name alone."""
    (tmp_path / "more.jsonl").write_text(json.dumps({"prompt": "The capital of Peru is", "target_new": "Cusco"}))
    args = ["train", "--adapter", str(finished_run[0]), "--edits", str(tmp_path / "more.jsonl")]
    args += ["--output_dir", str(tmp_path / "more")]
    assert main(args) == 0
    assert main([*args, RESUME]) == 0, capsys.readouterr().err
    assert "is complete: nothing to resume" in capsys.readouterr().out


# What is no number.


@pytest.mark.parametrize(("steps", "strategy"), [(2000, "no"), (1999, "no"), (2000, "epoch")])
def test_a_long_run_without_checkpoints_is_told_of(caplog, steps, strategy):
    args, state = types.SimpleNamespace(save_strategy=strategy), transformers.TrainerState(max_steps=steps)
    StepGuard(max, 1).on_train_begin(args, state, None)
    assert ("2000 steps without checkpoints" in caplog.text) == (steps == 2000 and strategy == "no")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_it_is_learned(base, tokenizer, tmp_path, monkeypatch, value):
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    compute, calls = trainer.compute_loss, []

    def spoiled(*args, **kwargs):
        calls.append(1)
        return compute(*args, **kwargs) * (value if len(calls) == 3 else 1.0)

    monkeypatch.setattr(trainer, "compute_loss", spoiled)
    with pytest.raises(EditError, match=f"^step 3: the loss is {value}, .*Lower --learning_rate.* are kept$"):
        trainer.train()
    assert names(tmp_path / "out") == ["checkpoint-1", "checkpoint-2"]
    assert all(value.isfinite().all() for value in weights(trainer).values())
    monkeypatch.undo()
    assert problem_of(tmp_path / "out" / "checkpoint-2") is None


def test_a_gradient_that_is_no_number_stops_too(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path / "out", max_steps=2))
    weight = next(value for value in trainer.model.parameters() if value.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        EditError, match=r"^step 1: the loss is \d[\d.]*, the norm of its gradient (nan|inf); training stopped"
    ):
        trainer.train()


# Folders, options, signals.


def test_the_flag_stands_alone_or_with_a_folder():
    assert with_words("train", [RESUME]) == [f"{RESUME}=True"]
    assert with_words("train", [RESUME, "--seed", "1"]) == [f"{RESUME}=True", "--seed", "1"]
    assert with_words("train", [RESUME, "True"]) == [RESUME, "True"]
    assert with_words("train", ["--seed", "1", RESUME, "out/checkpoint-5"])[-1] == "out/checkpoint-5"
    wishes = {True: True, "True": True, "true": True, "False": False, None: False, "out/c": "out/c"}
    assert {given: resume_wish(given) for given in wishes} == wishes


@pytest.fixture
def no_model(monkeypatch):
    """Fails where weights are loaded."""
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: 1 / 0)


def refused(capsys, *args):
    assert main([*TRAIN, *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("hf-ftedit: ")


def test_what_cannot_be_gone_on_from_is_told_before_a_model_is_loaded(tmp_path, monkeypatch, capsys, no_model):
    monkeypatch.chdir(tmp_path)
    told = "resume_from_checkpoint 'nowhere': there is no such folder; give a complete checkpoint folder, or the flag"
    assert refused(capsys, RESUME, "nowhere").startswith(told)
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    assert refused(capsys, RESUME, "out/checkpoint-5", "--output_dir", "out").startswith(
        "resume_from_checkpoint 'out/checkpoint-5': adapter_model.safetensors or model.safetensors is missing"
    )
    assert refused(capsys, "--output_dir", "out") == (
        "output_dir 'out' holds checkpoints of a run that was stopped; add --resume_from_checkpoint to go on with it, "
        "or remove the folder"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert refused(capsys, RESUME, "--output_dir", "mine") == (
        "output_dir 'mine' holds 'notes.txt', but no checkpoint to go on from; give another --output_dir or remove it"
    )
    assert refused(capsys, RESUME, "--output_dir", "mine/notes.txt").startswith(
        "output_dir 'mine/notes.txt' is a file"
    )


def test_leftovers_of_a_killed_save_are_no_obstacle(tmp_path):
    folder = tmp_path / "out"
    for leftover in (".hf_ftedit-out-abcdefgh", ASIDE, "runs"):
        (folder / leftover).mkdir(parents=True)
    (folder / "README.md").touch()
    require_place(folder, True)
    require_place(tmp_path / "new", True)
    with pytest.raises(EditError, match="is not empty"):
        require_place(folder, None)


def test_a_signal_stops_at_once_or_leaves_a_wish():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="^stopped by SIGTERM$") as caught, stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143 and not isinstance(caught.value, Exception)
    with stoppable():
        with pytest.raises(Stopped, match="^stopped by SIGINT$") as caught, deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert wished() == signal.SIGINT
            os.kill(os.getpid(), signal.SIGTERM)  # as launchers do: the wish is there already
        assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before and wished() == 0


def test_a_forked_worker_dies_of_a_signal_without_a_word(capfd):
    with stoppable():
        if not (pid := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert capfd.readouterr() == ("", "")
