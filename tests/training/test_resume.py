"""Runs that are killed, stopped or spoiled: they resume, and end with the very files of a run that was left alone."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
import torch
import transformers
from datasets import Dataset
from running import free_port
from tiny import small_pool
from tiny_edits import BEST_EPOCH, EDITS, config, editor, fitted, lora
from transformers import EarlyStoppingCallback

from hf_ftedit import EditError
from hf_ftedit.cli import main
from hf_ftedit.hub.folder import sha256
from hf_ftedit.training.checkpoints import (
    RUN_FILE,
    STATE_FILE,
    check_output_dir,
    checkpoints_in,
    is_complete,
    newest_checkpoint,
    remove_checkpoint,
)
from hf_ftedit.training.resume import WARN_STEPS, StepGuard, rows_hash
from hf_ftedit.training.signals import Stopped, deferred_signals, pending_signal, stoppable

HELPER = Path(__file__).parents[1] / "killed.py"
ROOT = HELPER.parent.parent
TRAIN = ["train", "--max_edits", "2", "--num_paraphrases", "5", "--num_locality", "8", "--lora_r", "8"]
TRAIN += ["--num_train_epochs", "2", "--per_device_train_batch_size", "4", "--text_loss_weight", "0"]
OFTEN = [*TRAIN, "--save_strategy", "steps", "--save_steps", "3", "--save_total_limit", "1", "--output_dir"]
RESUME = "--resume_from_checkpoint"
KILL, TERM, INT = int(signal.SIGKILL), int(signal.SIGTERM), int(signal.SIGINT)
STEPS = 14  # 2 edits of 1 + 5 + 8 rows, by 4, twice
STEP = "hf_ftedit.training.resume.ResumableTrainer.training_step"


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def digests(folder):
    """SHA-256 of every file of a finished folder."""
    return {path.name: sha256(path) for path in Path(folder).iterdir() if path.is_file()}


def lines(text):
    """The package's lines on standard error, without progress bars and the remarks of libraries."""
    return [line for line in text.splitlines() if re.match(r"hf-ftedit: |Resuming|.* is incomplete|.* holds no", line)]


# Killed and stopped, for real.

MOMENTS = {
    "training": {"at": STEP, "call": 11, "signal": KILL},
    "torch.save": {"at": "torch.serialization._save", "call": 5, "signal": KILL},  # the second checkpoint's scheduler
    "marking": {"at": "os.replace", "call": 3, "signal": KILL},
    "plotting": {"at": "matplotlib.figure.Figure.savefig", "call": 1, "signal": TERM},
    "moving": {"at": "os.replace", "call": 8, "signal": KILL},  # five checkpoints, then the finished files
    "step": {"at": STEP, "call": 10, "signal": TERM},
    "epoch": {"at": STEP, "call": 7, "signal": INT},
}
RESUMED_AT = {"training": 9, "torch.save": 3, "marking": 6, "plotting": STEPS, "moving": STEPS, "step": 10, "epoch": 7}
UNSAVED = ("step", "epoch")  # runs without checkpoints but that of the signal
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))"


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Each moment's run and the one that resumes it; the folder they are in."""
    folder = tmp_path_factory.mktemp("ends")
    small_pool(folder)
    chains = {"whole": [{"args": [*OFTEN, "whole"]}]}
    for moment, at in MOMENTS.items():
        args = [*(TRAIN + ["--output_dir"] if moment in UNSAVED else OFTEN), moment]
        chains[moment] = [{"args": args, **at}, {"args": [*args, RESUME]}]
    # Beyond the limit a write fails as on a full disk.
    chains["full"] = [{"args": [*OFTEN, "full"], "at": "torch.save", "call": 4, "code": FULL}]
    two = [*TRAIN, "--mastered_probability", "0.5", "--output_dir"]
    chains["two"] = [
        {"args": [*two, "two-whole"], "port": free_port()},
        {"args": [*two, "two"], "at": STEP, "call": 2, "signal": TERM, "port": free_port()},
        {"args": [*two, "two", RESUME], "port": free_port()},
    ]
    for run in itertools.chain(*chains.values()):
        run["args"] += ["--locality_pool", "pool.jsonl"]
    (folder / "chains.json").write_text(json.dumps(chains))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env["HF_DATASETS_CACHE"] = str(folder / "cache")
    command = [sys.executable, str(HELPER), "chains.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_ends_with_the_files_of_a_whole_one(ends, moment):
    folder, ended = ends
    stopped, resumed = ended[moment]
    number = MOMENTS[moment]["signal"]
    assert stopped["code"] == (-KILL if number == KILL else 128 + number), stopped["err"]
    assert "Traceback" not in stopped["err"]
    assert resumed["code"] == 0, resumed["err"]
    step = RESUMED_AT[moment]
    assert lines(resumed["err"])[-1] == f"Resuming from {moment}/checkpoint-{step}"
    if moment in UNSAVED:
        name = signal.Signals(number).name
        assert lines(stopped["err"]) == [
            f"hf-ftedit: {name}: saving at the end of this step",
            f"hf-ftedit: stopped by {name} at step {step}; saved in {moment}/checkpoint-{step}; "
            "add --resume_from_checkpoint to go on",
        ]
    if moment in ("torch.save", "marking"):
        assert lines(resumed["err"])[0] == f"{moment}/checkpoint-{step + 3} is incomplete and skipped"
    assert digests(folder / moment) == digests(folder / "whole")
    assert [name for name in names(folder / moment) if "checkpoint" in name] == [
        f"checkpoint-{step if moment in UNSAVED else STEPS}"
    ]
    assert not [name for name in (*names(folder / moment), *names(folder)) if name.startswith(".")]


@pytest.mark.slow
def test_outside_of_training_a_signal_stops_at_once(ends):
    (line,) = lines(ends[1]["plotting"][0]["err"])
    assert line == "hf-ftedit: stopped by SIGTERM; add --resume_from_checkpoint to go on"


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_a_line(ends):
    (failed,) = ends[1]["full"]
    assert failed["code"] == 2 and "Traceback" not in failed["err"], failed["err"]
    (line,) = lines(failed["err"])
    assert line.startswith("hf-ftedit: full/checkpoint-6: File too large; free some space")
    assert newest_checkpoint(ends[0] / "full").name == "checkpoint-3"


@pytest.mark.slow
def test_two_processes_stop_at_one_step_and_resume(ends):
    """The second one is sent a signal."""
    folder, ended = ends
    whole, stopped, resumed = ended["two"]
    assert (whole["code"], resumed["code"]) == (0, 0), resumed["err"]
    assert stopped["code"] == 128 + TERM and "Traceback" not in stopped["err"], stopped["err"]
    assert lines(stopped["err"]) == [
        "hf-ftedit: SIGTERM: saving at the end of this step",
        "hf-ftedit: stopped by SIGTERM at step 2; saved in two/checkpoint-2; add --resume_from_checkpoint to go on",
    ]
    assert lines(resumed["err"]) == ["Resuming from two/checkpoint-2"]
    assert digests(folder / "two") == digests(folder / "two-whole")


# In one process: what resuming depends on.


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items() if value.is_floating_point()}


def settings(**more):
    return {"per_device_train_batch_size": 2, "num_locality": 4, "save_strategy": "steps", "save_steps": 1, **more}


BEST = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "efficacy"}
RUNS = {
    "by length": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "random": {"train_sampling_strategy": "random"},
    "best": {**BEST, "eval_steps": 3, "load_best_model_at_end": True},
    "mastered": {"mastered_probability": 0.5, "num_train_epochs": 3, "learning_rate": 2e-2},
}


@pytest.mark.parametrize("run", RUNS)
def test_resuming_in_any_epoch_gives_the_same_weights(base, tokenizer, tmp_path, run):
    kwargs = settings(**{"num_train_epochs": 2, "save_steps": 3, **RUNS[run]})
    whole = fitted(base, tokenizer, config(tmp_path / "whole", **kwargs))
    expected = weights(whole)
    checkpoints = checkpoints_in(tmp_path / "whole")
    assert all(map(is_complete, checkpoints)) and checkpoints[-1].name == f"checkpoint-{whole.state.max_steps}"
    # In the first epoch, from where all the others are trained too; and in the last.
    for checkpoint in (checkpoints[0], checkpoints[-2]) if run in ("by length", "mastered") else checkpoints[:1]:
        again = editor(base, tokenizer, config(tmp_path / "whole", **kwargs))
        again.train(resume_from_checkpoint=checkpoint)
        assert again.state.global_step == whole.state.max_steps
        assert again.state.best_metric == whole.state.best_metric
        if whole._mastery:
            assert again._mastery.state()["trained"] == whole._mastery.state()["trained"]
        resumed = weights(again)
        assert all(torch.equal(resumed[name], expected[name]) for name in expected), checkpoint.name


def test_early_stopping_stops_a_resumed_run_at_the_same_step(base, tokenizer, tmp_path):
    args = config(tmp_path / "out", **BEST_EPOCH, num_train_epochs=12, learning_rate=1e-6, logging_steps=100)

    def end(checkpoint=None):
        trainer = editor(base, tokenizer, args, EDITS[:1], callbacks=[EarlyStoppingCallback(3)])
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.state.global_step

    assert end() == 4  # after the first evaluation, three that are no better
    assert end(str(tmp_path / "out" / "checkpoint-3")) == 4


@pytest.fixture(scope="module")
def begun_once(base, tokenizer, tmp_path_factory):
    """The folder of a run of five steps, of which each is saved."""
    folder = tmp_path_factory.mktemp("begun")
    fitted(base, tokenizer, config(folder, **settings(max_steps=5)))
    return folder


@pytest.fixture
def begun(begun_once, tmp_path):
    """A copy of it."""
    return shutil.copytree(begun_once, tmp_path / "out")


def test_a_checkpoint_holds_no_pickle_of_settings_and_no_path(begun_once, begun, tmp_path):
    for checkpoint in checkpoints_in(tmp_path / "out"):
        assert {RUN_FILE, "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", STATE_FILE} <= set(
            names(checkpoint)
        )
        assert "training_args.bin" not in names(checkpoint)
        assert str(begun_once) not in (checkpoint / RUN_FILE).read_text()
    assert names(tmp_path / "out") == [f"checkpoint-{step}" for step in range(1, 6)]


def test_a_half_written_checkpoint_is_skipped_and_written_anew(begun, base, tokenizer, tmp_path, caplog):
    last = tmp_path / "out" / "checkpoint-5"
    expected = sha256(last / "adapter_model.safetensors")
    (last / RUN_FILE).unlink()
    (last / "adapter_model.safetensors").write_bytes(b"cut off")
    (last / "left over").touch()
    (tmp_path / "out" / ".hf_ftedit-out-abcd_123").mkdir()
    again = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    with caplog.at_level("INFO", logger="hf_ftedit"):
        again.train(resume_from_checkpoint=True)
    assert caplog.messages == [
        f"{last} is incomplete and skipped",
        f"Resuming from {tmp_path / 'out' / 'checkpoint-4'}",
    ]
    assert sha256(last / "adapter_model.safetensors") == expected
    assert is_complete(last) and "left over" not in names(last)
    assert names(tmp_path / "out") == [f"checkpoint-{step}" for step in range(1, 6)]


def test_a_removal_that_is_killed_leaves_no_checkpoint_that_looks_complete(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    remove_checkpoint(tmp_path / "out" / "checkpoint-5")
    assert newest_checkpoint(tmp_path / "out") == tmp_path / "out" / "checkpoint-4"


def test_only_weights_are_no_checkpoint_to_resume_from(base, tokenizer, tmp_path):
    fitted(base, tokenizer, config(tmp_path / "out", **settings(max_steps=2, save_only_model=True)))
    assert len(checkpoints_in(tmp_path / "out")) == 2 and newest_checkpoint(tmp_path / "out") is None


def test_without_a_checkpoint_training_begins(base, tokenizer, tmp_path, caplog):
    trainer = editor(base, tokenizer, config(tmp_path / "out", max_steps=1))
    with caplog.at_level("INFO", logger="hf_ftedit"):
        trainer.train(resume_from_checkpoint=True)
    assert caplog.messages == [f"{tmp_path / 'out'} holds no complete checkpoint: training begins"]
    assert trainer.state.global_step == 1


OTHERS = {
    r"learning_rate was 0\.01, and is 0\.001 now": {"learning_rate": 1e-3},
    r"gradient_accumulation_steps was 1, and is 2 now": {"gradient_accumulation_steps": 2},
    r"its training rows are others": {"seed": 42, "edits_left_out": 1},
    r"lora_r was 32, and is 4 now": {"peft_config": lora(lora_dropout=0.05, lora_alpha=64)},
    r"alpha_pattern was None, and is {'q_proj': 8} now": {
        "peft_config": lora(r=32, lora_dropout=0.05, lora_alpha=64, alpha_pattern={"q_proj": 8})
    },
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(begun, base, tokenizer, tmp_path, difference):
    more = dict(OTHERS[difference])
    edits = EDITS[more.pop("edits_left_out", 0) :]
    kwargs = {"peft_config": more.pop("peft_config")} if "peft_config" in more else {}
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5, **more)), edits, **kwargs)
    with pytest.raises(
        EditError, match=f"^checkpoint '.*checkpoint-5' was made with other settings: {difference}; resume with"
    ):
        trainer.train(resume_from_checkpoint=True)


def test_rows_are_the_same_where_only_their_references_were_rounded_otherwise():
    rows = [{"input_ids": [1, 2], "ref_tokens": [3], "ref_logprobs": [-0.5], "ref_rest": [-1.0]}]
    rounded = [{**rows[0], "ref_logprobs": [-0.5005], "ref_rest": [-0.999]}]
    others = [{**rows[0], "input_ids": [1, 3]}]
    first, second, third = (rows_hash(Dataset.from_list(part)) for part in (rows, rounded, others))
    assert first == second != third


PARTS = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE_FILE, RUN_FILE]


def test_a_damaged_checkpoint_is_named(begun, base, tokenizer, tmp_path):
    last = tmp_path / "out" / "checkpoint-5"
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    for part in PARTS:
        content = (last / part).read_bytes()
        for damaged in (b"rubbish", b"", b"{}" if part == STATE_FILE else content[: len(content) // 2]):
            (last / part).write_bytes(damaged)
            with pytest.raises(EditError, match="checkpoint-5' is damaged .*; remove it, and resume from an earlier"):
                trainer.train(resume_from_checkpoint=True)
        (last / part).write_bytes(content)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 5
    (last / RUN_FILE).write_bytes(b"")  # as a power cut leaves it; the trainer reads the date of a chat there
    with pytest.raises(EditError, match="checkpoint-5' is damaged .*; remove it, and resume from an earlier"):
        editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))


def test_settings_that_only_measure_may_change(begun, base, tokenizer, tmp_path):
    kwargs = settings(max_steps=5, protocol="accuracy", eval_tokens_per_batch=100)
    trainer = editor(base, tokenizer, config(tmp_path / "out", **kwargs))
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 5


def test_a_checkpoint_of_a_stock_trainer_may_be_named(begun, base, tokenizer, tmp_path, caplog):
    last = tmp_path / "out" / "checkpoint-5"
    (last / RUN_FILE).unlink()
    trainer = editor(base, tokenizer, config(tmp_path / "out", **settings(max_steps=5)))
    trainer.train(resume_from_checkpoint=str(last))
    assert trainer.state.global_step == 5
    assert f"{last} has no edit_run.json: it may be of other edits or settings" in caplog.text
    (last / STATE_FILE).unlink()
    with pytest.raises(EditError, match=rf"checkpoint-5': no {STATE_FILE} is there; give a complete checkpoint"):
        trainer.train(resume_from_checkpoint=str(last))


@pytest.mark.parametrize(("limit", "steps"), [(1, [1, 5]), (2, [1, 5]), (3, [1, 4, 5])])
def test_old_checkpoints_go_but_never_the_best_one(base, tokenizer, tmp_path, limit, steps):
    kwargs = settings(max_steps=5, save_total_limit=limit, num_locality=0, **BEST)
    kwargs |= {"locality_strategy": "none", "load_best_model_at_end": limit > 1}
    kwargs |= {"learning_rate": 0.0}  # the same score at every step: the first one stays the best
    trainer = fitted(base, tokenizer, config(tmp_path / "out", **kwargs))
    assert [path.name for path in checkpoints_in(tmp_path / "out")] == [f"checkpoint-{step}" for step in steps]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-1")
    assert trainer.args.save_total_limit == limit
    for path in checkpoints_in(tmp_path / "out"):
        state = json.loads((path / STATE_FILE).read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "out" / "checkpoint-1")


def test_the_best_checkpoint_may_be_moved_but_not_missing(base, tokenizer, tmp_path):
    kwargs = settings(max_steps=3, learning_rate=0.0, load_best_model_at_end=True, **BEST)
    fitted(base, tokenizer, config(tmp_path / "out", **kwargs))
    (tmp_path / "out").rename(tmp_path / "moved")
    again = editor(base, tokenizer, config(tmp_path / "moved", **kwargs))
    again.train(resume_from_checkpoint=True)
    assert again.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-1")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-1")
    with pytest.raises(EditError, match="checkpoint-1, the best checkpoint so far, is missing; put it back"):
        editor(base, tokenizer, config(tmp_path / "moved", **kwargs)).train(resume_from_checkpoint=True)


def test_rows_are_sorted_by_the_lengths_that_tokenizing_gave(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path))
    sampler = trainer._get_train_sampler(trainer._remove_unused_columns(trainer.train_dataset))
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    assert trainer._guard.order is sampler.generator and len(sampler) == len(lengths)
    assert sampler.lengths == lengths and type(sampler.lengths) is list


# NaN and infinite losses.


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_nan_or_infinite_loss_stops_before_it_is_learned(base, tokenizer, tmp_path, monkeypatch, value):
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


def test_an_infinite_gradient_stops_too(base, tokenizer, tmp_path):
    trainer = editor(base, tokenizer, config(tmp_path / "out", max_steps=2))
    weight = next(value for value in trainer.model.parameters() if value.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        EditError, match=r"^step 1: the loss is \d[\d.]*, the norm of its gradient (nan|inf); training stopped"
    ):
        trainer.train()


@pytest.mark.parametrize(("steps", "strategy"), [(2000, "no"), (1999, "no"), (2000, "epoch")])
def test_a_long_run_without_checkpoints_is_warned_of(caplog, steps, strategy):
    args, state = types.SimpleNamespace(save_strategy=strategy), transformers.TrainerState(max_steps=steps)
    StepGuard(int).on_train_begin(args, state, None)
    assert ("2000 steps without checkpoints" in caplog.text) == (steps == WARN_STEPS and strategy == "no")


# Folders and signals.


def test_a_finished_run_is_not_trained_again(tmp_path, capsys):
    finished = shutil.copytree(ROOT / "tests" / "fixtures" / "folder_0.1.0", tmp_path / "finished")
    args = ["train", "--edits", str(finished / "edits.jsonl"), "--output_dir", str(finished)]
    same = ["--learning_rate", "0.004", "--num_train_epochs", "6", "--protocol", "auto", RESUME]
    assert main([*args, *same]) == 0
    assert "is complete: nothing to resume" in capsys.readouterr().out
    others = {
        "its edits are others": ["--max_edits", "1"],
        "learning_rate was 0.004, and is 0.5 now": ["--learning_rate", "0.5"],
        "num_paraphrases was 10, and is 3 now": ["--num_paraphrases", "3"],
        "lora_r was 2, and is 4 now": ["--lora_r", "4"],
        "lora_alpha was 4, and is 8 now": ["--lora_alpha", "8"],
        "lora_target_modules was ['all-linear'], and is ['q_proj'] now": ["--lora_target_modules", "q_proj"],
    }
    for difference, given in others.items():
        assert main([*args, *given, RESUME]) == 2
        assert f"was finished by another command: {difference}" in capsys.readouterr().err
    assert main(args) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def refusal(capsys, *args):
    assert main([*TRAIN, *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("hf-ftedit: ")


def test_output_dirs_are_refused_before_a_model_is_loaded(tmp_path, monkeypatch, capsys, no_model):
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, RESUME, "nowhere") == (
        "resume_from_checkpoint 'nowhere': no trainer_state.json is there; give a complete checkpoint folder, or the "
        "flag alone to resume from the newest complete one in output_dir"
    )
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    assert refusal(capsys, "--output_dir", "out") == (
        "output_dir 'out' holds checkpoints of a run that was stopped; add --resume_from_checkpoint to go on with it, "
        "or remove the folder"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert refusal(capsys, RESUME, "--output_dir", "mine") == (
        "output_dir 'mine' holds 'notes.txt', but no checkpoint to resume from; give another --output_dir or remove it"
    )
    assert "is a file; give a folder" in refusal(capsys, RESUME, "--output_dir", "mine/notes.txt")


def test_leftovers_of_a_killed_run_are_no_obstacle(tmp_path):
    folder = tmp_path / "out"
    for leftover in (".hf_ftedit-out-abcdefgh", "checkpoint-3", "runs"):
        (folder / leftover).mkdir(parents=True)
    (folder / "README.md").touch()  # a kill while the finished files were moved in
    check_output_dir(folder, True)
    check_output_dir(tmp_path / "new", True)
    with pytest.raises(EditError, match="holds checkpoints of a run that was stopped"):
        check_output_dir(folder, None)


def test_a_signal_stops_at_once_or_sets_a_flag():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="^stopped by SIGTERM$") as caught, stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143 and not isinstance(caught.value, Exception)
    with stoppable():
        with pytest.raises(Stopped, match="^stopped by SIGINT$") as caught, deferred_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert pending_signal() == signal.SIGINT
            os.kill(os.getpid(), signal.SIGTERM)  # as launchers do: one is pending already
        assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before and pending_signal() == 0


def test_a_training_in_another_thread_leaves_signals_to_the_main_one():
    begun, stopped = threading.Event(), threading.Event()

    def train():
        with deferred_signals():
            begun.set()
            stopped.wait(60)

    with pytest.raises(Stopped, match="^stopped by SIGINT$"), stoppable():
        thread = threading.Thread(target=train)
        thread.start()
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        stopped.wait(5)
    stopped.set()
    thread.join()


def test_a_signal_in_a_finalizer_stops_as_well(capsys):
    """Python drops what is raised there; PyTorch has callbacks of weak references that run all the time."""

    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    hook = sys.unraisablehook
    with pytest.raises(Stopped, match="^stopped by SIGTERM$"), stoppable():
        Finalized()
        time.sleep(5)
    assert sys.unraisablehook is hook and capsys.readouterr().err == ""


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with stoppable(), pytest.raises(Stopped, match="^stopped by SIGINT at once, without saving$"), deferred_signals():
        for now[0] in (100.0, 100.5):  # a terminal's and a launcher's
            os.kill(os.getpid(), signal.SIGINT)
        now[0] = 101.5
        os.kill(os.getpid(), signal.SIGINT)


def test_a_forked_worker_dies_of_a_signal_silently(capfd):
    with stoppable():
        if not (pid := os.fork()):
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert capfd.readouterr() == ("", "")
