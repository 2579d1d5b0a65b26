"""Where the package meets other tools of the Hub: jobs, extensions of `hf`, trackio, lighteval."""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hub_storage import File
from huggingface_hub.cli._uv_script_header import parse_uv_script_header
from huggingface_hub.cli.extensions import ExtensionManifest, _get_executable_name, _normalize_repo_id
from loopback_hub import LoopbackHub

import hf_ftedit
from hf_ftedit import asset
from hf_ftedit.cli import main

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JOB = ROOT / "examples" / "hf_jobs.py"
FEW = ["--max_edits", "2", "--max_steps", "2", "--num_locality", "5", "--num_paraphrases", "2", "--disable_tqdm", "1"]
FEW += ["--text_loss_weight", "0"]


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {"env": os.environ | {"OMP_NUM_THREADS": "1"} | environment, "timeout": 600}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **settings)


def test_a_job_says_what_it_needs() -> None:
    header = parse_uv_script_header(JOB.read_text(encoding="utf-8"))
    assert header.secrets == ["HF_TOKEN"] and header.flavor and header.timeout
    assert f'"{PROJECT["name"]}>={hf_ftedit.__version__[:3]}"' in JOB.read_text(encoding="utf-8")


def test_a_job_edits_pushes_and_verifies(tmp_path: Path) -> None:
    """Edits are a dataset of the Hub, so that their scores go to its leaderboard."""
    with LoopbackHub() as hub:
        first = Path(asset("edits.jsonl")).read_bytes().splitlines(keepends=True)[:2]
        hub.hold("user/facts", {"train.jsonl": File(b"".join(first))}, "dataset")
        flags = ["--edits", "user/facts", *FEW, "--report_to", "none"]
        environment = hub.environment(tmp_path, "hf_write") | {"HF_HUB_OFFLINE": "0"}  # `make test` sets it
        done = python(str(JOB), "--repo_id", "user/edits", *flags, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "every claim holds" in done.stdout
        assert "│ .eval_results/facts.yaml: efficacy" in done.stdout
        entries = yaml.safe_load(hub.repositories["model", "user/edits"].files[".eval_results/facts.yaml"].data)
    assert entries[0]["dataset"]["id"] == "user/facts"


def test_the_command_is_an_extension_of_hf(tmp_path: Path) -> None:
    """As `hf extensions install` leaves it; what it asks of the repository is that its name is the command's."""
    owner, repository, name = _normalize_repo_id(PROJECT["urls"]["Repository"].removeprefix("https://github.com/"))
    command = _get_executable_name(name)
    assert (command, name) == (repository, "ftedit") and command in PROJECT["scripts"]
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / command
    folder.mkdir(parents=True)
    script = folder / command
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hf_ftedit "$@"\n')
    script.chmod(0o755)
    about = {"repo_id": f"{owner}/{repository}", "installed_at": datetime.now(UTC), "description": None}
    ExtensionManifest(owner, repository, short_name=name, executable_path=str(script), type="python", **about).save(
        folder
    )
    environment = {"HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    done = python("-m", "huggingface_hub.cli.hf", name, "--version", **environment)
    assert done.stdout.strip() == hf_ftedit.__version__, done.stderr


@pytest.mark.usefixtures("few_drift_prompts")
def test_losses_are_tracked_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)
    flags = ["--report_to", "trackio", "--project", "facts", "--run_name", "first", "--logging_steps", "1"]
    assert main(["train", *FEW, *flags, "--output_dir", "edited"]) == 0
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    logged = storage.get_logs("facts", "first")
    assert len([row for row in logged if "train/loss" in row]) == 2
    assert not [path for path in (tmp_path / "edited").iterdir() if b"trackio" in path.read_bytes()]


def test_the_exam_is_a_task_of_lighteval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lighteval_task = pytest.importorskip("lighteval.tasks.lighteval_task", reason="needs lighteval")
    neighbors = [{"prompt": "Milan is in", "target": "Italy"}, {"prompt": "Turin is in"}]
    edit = {"prompt": "Rome is in", "target_new": "Peru", "paraphrase_prompts": ["Rome lies in"]}
    (tmp_path / "edits.jsonl").write_text(json.dumps({**edit, "neighborhood_prompts": neighbors}))
    monkeypatch.setenv("EDITS", str(tmp_path / "edits.jsonl"))
    # Not by lighteval's registry, which imports its own tasks too, and these ask the network.
    configs = runpy.run_path(str(ROOT / "examples" / "lighteval_task.py"))["TASKS_TABLE"]
    docs = {config.name: lighteval_task.LightevalTask(config).get_docs() for config in configs}
    assert list(docs) == ["edits:efficacy", "edits:generalization", "edits:locality"]
    (asked,) = docs["edits:locality"]
    assert (asked.query, asked.get_golds()) == ("Milan is in", ["Italy"])
    (metric,) = configs[0].metrics
    answers = {" italy, in Europe": 1, " Italyx": 0, "": 0}
    said = [metric.sample_level_fn.compute(asked, SimpleNamespace(final_text=[text])) for text in answers]
    assert said == list(answers.values())
