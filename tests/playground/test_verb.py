"""`hf-ftedit playground`: its arguments, a missing gradio, and the Space that calls it."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import pytest
import yaml
from tiny import bpe_tokenizer, moved, saved, tiny_model

import hf_ftedit.cli.playground
from hf_ftedit import load_model, playground
from hf_ftedit.cli import main
from hf_ftedit.cli.arguments import read_arguments

SPACE = Path(__file__).parents[2] / "examples" / "space"


@pytest.fixture
def served(monkeypatch):
    """What would be served, and where."""
    calls = []
    monkeypatch.setattr("hf_ftedit.cli.playground.find_spec", lambda name: name)
    monkeypatch.setitem(vars(playground), "launch", lambda *args, **settings: calls.append((*args, settings)))
    return calls


def test_without_gradio_the_remedy_is_said(capsys, monkeypatch):
    monkeypatch.setattr("hf_ftedit.cli.playground.find_spec", lambda name: None)
    assert main(["playground"]) == 2
    remedy = "playground needs the package gradio; install it with pip install 'hf-ftedit[playground]'"
    assert capsys.readouterr().err == f"hf-ftedit: {remedy}\n"


def test_the_embedded_model_is_served_to_this_machine_alone(served):
    assert main(["playground", "--num_train_epochs", "2"]) == 0
    ((ours, name, settings),) = served
    assert (name, settings) == ("hf_ftedit/embedded", {"host": "127.0.0.1", "port": 7860, "share": False})
    assert ours.args.num_train_epochs == 2 and ours.peft_config.r == 32 and not ours.adapters
    assert ours.args.locality_pool.endswith("locality_pool.jsonl")


def test_an_adapter_brings_its_base_model(served, adapters, capsys):
    given = [str(adapters / "a"), str(adapters / "b")]
    assert main(["playground", *given, "--port", "7861"]) == 0
    ((ours, name, settings),) = served
    assert name == "hf_ftedit/embedded" and settings["port"] == 7861 and list(ours.adapters) == ["a", "b"]
    assert main(["playground", given[0], given[0]]) == 2
    assert "two adapters have one name of 'a'; rename a folder" in capsys.readouterr().err


def test_an_adapter_of_another_program_brings_its_base_model_too(served, tmp_path):
    tokenizer = bpe_tokenizer()
    base = saved(tmp_path / "base", tiny_model("llama", tokenizer), tokenizer)
    moved(load_model(base)).save_pretrained(tmp_path / "foreign")
    assert main(["playground", str(tmp_path / "foreign")]) == 0
    ((ours, name, _),) = served
    assert name == "base" and ours.model.config.model_type == "llama" and ours.args.locality_pool is None


def test_what_trains_no_adapter_is_refused(served, capsys):
    assert main(["playground", "--push_to_hub"]) == 2
    assert "leave full_finetune, adapter and push_to_hub out" in capsys.readouterr().err and not served
    assert main(["playground", "--full_finetune"]) == 2
    assert "playground does not use --full_finetune; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
def test_a_port_that_there_is_not_is_told(served, capsys, port):
    assert main(["playground", "--port", port]) == 2 and not served
    assert capsys.readouterr().err == f"hf-ftedit: port is {port}: give a number from 1 to 65535\n"


def test_the_space_starts_the_same_page(monkeypatch):
    calls = []
    monkeypatch.setattr(hf_ftedit.cli, "main", lambda argv: calls.append(argv) or 0)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SPACE / "app.py"))
    verb, *argv = calls[0]
    options = read_arguments(verb, argv).values
    _, front, _ = (SPACE / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert ended.value.code == 0 and options["host"] == "0.0.0.0"
    assert metadata["models"] == [options["model_name_or_path"]] and (SPACE / metadata["app_file"]).is_file()
    assert metadata["sdk"] == "gradio" and len(metadata["short_description"]) <= 60


def test_spaces_name_the_python_that_the_package_needs():
    root = SPACE.parents[1]
    needed = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    for space in (SPACE, root / "metrics" / "edit_score"):
        _, front, _ = (space / "README.md").read_text().split("---\n", 2)
        assert f">={yaml.safe_load(front)['python_version']}" == needed
