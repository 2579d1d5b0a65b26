"""The distribution: the wheel made from the sdist holds the package, and edits facts without the repository."""

import json
import os
import re
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
    kinds = {".py", ".pyi", ".typed", ".json", ".jsonl", ".yaml", ".md", ".txt", ".safetensors"}
    assert {file.suffix for file in files} == kinds  # nothing that a program left in a folder of assets

    python(tmp_path, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", "lib", str(wheel))
    (tmp_path / "empty").mkdir()
    script, flags = str(tmp_path / "lib" / "bin" / "hf-ftedit"), ("--output_dir", "edited", "--report_to", "none")
    few = "--max_edits 2 --max_steps 2 --num_locality 5 --num_paraphrases 2 --text_loss_weight 0".split()
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


def test_workflows_pin_their_actions_and_run_what_is_there() -> None:
    workflows = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")
    }
    text = "\n".join(workflows.values())
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", used) for used in re.findall("uses: (.*)", text))
    assert all((ROOT / script).stat().st_mode & 0o111 for script in re.findall(r"run: (\.ci/\w+)", text))
    verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall("run: make (.*)", text)) <= set(verbs)
    jobs = yaml.safe_load(workflows["ci"])["jobs"]
    classifiers = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert set(classifiers) <= set(jobs["versions"]["strategy"]["matrix"]["python"])
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "versions")], check=True)


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_is_one_that_github_shows(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert content["name"] and content["description"] and content["labels"]
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) > 0
    for part in asked:
        assert part["type"] in ("input", "textarea", "dropdown", "checkboxes") and part["attributes"]["label"]
