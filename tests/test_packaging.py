"""The distribution: the wheel made from the sdist holds the package, and edits facts without the repository."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import hf_ftedit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def python(folder: Path, *arguments: str, **environment: str) -> str:
    """What `python *arguments` prints, run in `folder`."""
    command, env = [sys.executable, *arguments], os.environ | environment
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_of_the_sdist_edits_facts_without_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    python(tmp_path, "-m", "build", "--no-isolation", "--outdir", "dist", str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hf_ftedit/")}
    files = {file for file in (ROOT / "hf_ftedit").rglob("*") if file.is_file() and file.parent.name != "__pycache__"}
    assert packed == {file.relative_to(ROOT).as_posix() for file in files}

    python(tmp_path, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", "lib", str(wheel))
    (tmp_path / "empty").mkdir()
    script, flags = str(tmp_path / "lib" / "bin" / "hf-ftedit"), ("--output_dir", "edited", "--report_to", "none")
    few = ("--max_edits", "2", "--max_steps", "2", "--num_locality", "5", "--num_paraphrases", "2")
    installed = {"PYTHONPATH": str(tmp_path / "lib")}
    shown = python(tmp_path / "empty", script, "train", *few, *flags, **installed)
    assert "│ edit score" in shown
    results = json.loads((tmp_path / "empty" / "edited" / "eval_results.json").read_text(encoding="utf-8"))
    assert results["n_edits"] == 2 and results["base_model"] == "hf_ftedit/embedded"
    imported = python(tmp_path / "empty", "-c", "import hf_ftedit; print(hf_ftedit.__file__)", **installed)
    assert Path(imported.strip()).is_relative_to(tmp_path / "lib")


def test_every_statement_of_the_version_is_the_same() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:4] == "## ["
    ]
    assert cited == hf_ftedit.__version__ and headings[0].startswith(f"## [{cited}]")
