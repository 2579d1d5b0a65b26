"""The documentation: every public name has its place, links lead somewhere, code blocks parse, the site builds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference_once() -> None:
    stub = (ROOT / "hf_ftedit" / "__init__.pyi").read_text(encoding="utf-8")
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    assert sorted(re.findall(r"^::: hf_ftedit\.(\w+)$", pages, re.MULTILINE)) == sorted(
        re.findall(r" as (\w+)$", stub, re.MULTILINE)
    )


def test_site_builds_without_a_warning_and_its_reference_is_not_empty(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    page = (tmp_path / "reference" / "training.html").read_text(encoding="utf-8")
    assert 'id="hf_ftedit.EditTrainer"' in page and "drop-in for" in page and "num_paraphrases" in page
    assert "--paraphrase_strategy" in (tmp_path / "reference" / "command_line.html").read_text(encoding="utf-8")
