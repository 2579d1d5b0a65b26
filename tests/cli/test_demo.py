"""The main job as a new user runs it: `hf-ftedit train` without arguments."""

import json

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
