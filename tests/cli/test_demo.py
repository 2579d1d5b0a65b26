"""The main job as a new user runs it: `hf-ftedit train` without arguments, and what make runs after it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hf_ftedit.cli.app import main
from hf_ftedit.data.readers import read_edits
from hf_ftedit.hub.folder import ADAPTER_FILES


@pytest.mark.usefixtures("few_drift_prompts")
def test_train_without_arguments_edits_the_embedded_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 0
    folder = tmp_path / "edited-adapter"
    assert {file.name for file in folder.iterdir()} == set(ADAPTER_FILES)
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["before"]["edit_score"] < 20 and results["after"]["edit_score"] >= 90
    assert results["n_edits"] == len(read_edits(folder / "edits.jsonl")) >= 100
    assert "│ edit score" in capsys.readouterr().out
    assert not [file.name for file in folder.iterdir() if str(tmp_path).encode() in file.read_bytes()]
    assert main(["train"]) == 2  # nothing is overwritten
    assert "edited-adapter' exists and is not empty" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_opens_the_page_with_an_adapter_that_is_finished_alone(tmp_path):
    (program := tmp_path / "hf-ftedit").write_text('#!/bin/sh\necho "$*"\n')
    program.chmod(0o755)
    dry_run = ["make", "-n", "--no-print-directory", "playground", f"BIN={tmp_path}", "DEMO_ARGS=--port 8000"]
    printed = subprocess.check_output(dry_run, cwd=Path(__file__).parents[2], text=True, timeout=600)
    command = printed[printed.index("cd demo-run") :]
    (folder := tmp_path / "demo-run" / "edited-chat-adapter").mkdir(parents=True)

    def opened():
        return subprocess.check_output(["sh", "-c", command], cwd=tmp_path, text=True, timeout=600).strip()

    plain = "playground --gguf_file SmolLM2-135M-Instruct/*.gguf --chat_template --port 8000"
    assert opened() == plain  # a run that was killed leaves its folder
    (folder / "edit_config.yaml").touch()
    assert opened() == "playground edited-chat-adapter --port 8000"
