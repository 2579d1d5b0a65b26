"""Docs: code runs or parses, links lead somewhere, messages are those of the package, every name has its place."""

import ast
import doctest
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from running import run

from hf_ftedit import EditConfig, EditModelConfig, read_edits
from hf_ftedit.cli.arguments import MORE_OPTIONS, help_text, parse_rest, read_arguments
from hf_ftedit.cli.grid import read_grid
from hf_ftedit.cli.options import OPTIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MODULES = sorted((ROOT / "hf_ftedit").rglob("*.py"))
WITH_EXAMPLES = [path for path in MODULES if ">>> " in path.read_text(encoding="utf-8")]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md")), ROOT / "examples" / "benchmarks" / "README.md"]
}
README, QUICK_START = TEXTS["README.md"], TEXTS["docs/quick_start.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    language: str
    text: str


def blocks_of(page: str, text: str) -> list[Block]:
    """The page's blocks; one in a list is indented."""
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, language, re.sub(f"^{indent}", "", body, flags=re.M)) for indent, language, body in found]


BLOCKS = [block for page, text in TEXTS.items() for block in blocks_of(page, text)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def python_of(page: str) -> list[str]:
    return [block.text for block in of("python") if block.page == page]


@pytest.mark.usefixtures("few_drift_prompts")
def test_python_of_the_guide_runs_in_turn_edits_the_fact_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = guide = python_of("docs/guides/python.md")
    assert python_of("README.md") == [first]
    script = tmp_path / "guide.py"
    script.write_text("\n".join(guide), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    *_, scores, said, share, same = run(script).splitlines()
    assert "'eval_edit_score': 100.0" in scores
    assert [said, share, same] == re.findall(r"^print\(.*\)  # (.*)$", "\n".join(guide), re.MULTILINE)
    assert (
        said == "The capital of France is Lyon" and (tmp_path / "paris-edit" / "adapter_model.safetensors").is_file()
    )


def test_blocks_of_data_and_code_parse() -> None:
    for block in BLOCKS:
        if block.language == "python":
            compile(block.text, block.page, "exec")
        elif block.language == "json":
            lines = [block.text] if block.text.startswith("[") or "\n  " in block.text else block.text.splitlines()
            assert all(json.loads(line) for line in lines), block
        elif block.language == "yaml":
            assert list(yaml.safe_load_all(block.text)), block
        else:
            assert block.language in ("bash", "text", "toml", "dockerfile", "jinja"), block


@pytest.mark.parametrize("module", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_are_true(module: Path) -> None:
    found = doctest.testmod(importlib.import_module(".".join(module.relative_to(ROOT).with_suffix("").parts)))
    assert found.attempted and not found.failed


def test_examples_of_edits_are_edits() -> None:
    for page in ("README.md", "docs/guides/chat_facts.md"):
        (block,) = (block for block in of("json") if block.page == page)
        assert [record.target_new for record in read_edits(json.loads(block.text))] == ["Astana"]


def commands_of(text: str) -> list[list[str]]:
    """The words of each command, without variables before it and what a pipe feeds."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    words = [shlex.split(part, comments=True) for line in lines for part in re.split(r" && | \| ", line)]
    return [list(filter(None, command)) for command in words if command]


def check_verb(verb: str, args: list[str]) -> None:
    """Parse a command as the program does; files of models need not exist."""
    if {"--help", "--version"} & {verb, *args}:
        return
    arguments = read_arguments(verb, args)
    options = arguments.options()
    if verb == "sweep":
        assert read_grid(options.grid)
        check_verb("train", arguments.flags)
    elif verb in MORE_OPTIONS:
        parse_rest((EditConfig, EditModelConfig), arguments, vars(options) if verb == "train" else {})


@pytest.mark.parametrize("page", sorted({block.page for block in of("bash")}))
def test_commands_parse(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (gguf := tmp_path / "model.gguf").touch()
    for block in of("bash"):
        if block.page != page:
            continue
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=600)
        for words in commands_of(block.text):
            program, *args = [str(gguf) if word.endswith(".gguf") else word for word in words]
            if program.endswith("hf-ftedit") or "hf_ftedit" in args:
                verb, *flags = args[args.index("hf_ftedit") + 1 :] if "hf_ftedit" in args else args
                check_verb(verb, flags)
            elif program == "make":
                assert args[0] in targets
            elif program == "python" and args[0].startswith("examples/"):
                assert (ROOT / args[0]).is_file()
            elif program == "pip":
                extras = re.findall(r"(?:hf-ftedit|\.)\[([\w,-]+)\]", " ".join(args))
                assert {name for each in extras for name in each.split(",")} <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"(?:\]\(|src=\")(?!https?:|mailto:)([^)\s#\"]*)(?:#([^)\s\"]+))?", text)
    for path, anchor in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if anchor and not anchor.startswith("hf_ftedit."):
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_readme_is_short_and_every_page_is_found() -> None:
    """README within its length; each page has a title, and stands in the navigation or among the guides."""
    assert len(README.splitlines()) <= 150
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        name = path.relative_to(DOCS).as_posix()
        assert name in nav or name.startswith(("guides/", "studies/")), name
        assert name.startswith("studies/") or path.read_text(encoding="utf-8").startswith("# "), name


def test_every_public_name_is_in_the_reference_once() -> None:
    stub = (ROOT / "hf_ftedit" / "__init__.pyi").read_text(encoding="utf-8")
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    documented = re.findall(r"^::: hf_ftedit\.(\w+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(re.findall(r" as (\w+)$", stub, re.MULTILINE))


def test_readme_names_every_verb() -> None:
    assert set(re.findall(r"^\| `hf-ftedit (\w+)`", README, re.MULTILINE)) == set(OPTIONS)


def test_messages_of_troubleshooting_are_those_of_the_package() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    said = "\n".join(text.replace("`", "") for text in constants if isinstance(text, str))
    said += re.sub(r"%[ds]", "\n", said)  # of log lines
    symptoms = re.findall(r"^- `([^`]+)`", TEXTS["docs/guides/troubleshooting.md"], re.MULTILINE)
    parts = [part.strip() for symptom in symptoms for part in symptom.split("…")]
    assert len(symptoms) > 25 and [part for part in parts if part not in said] == []


def test_answers_shown_are_those_printed() -> None:
    """README and picture show a part of what the quick start has of a run."""
    (shown,) = (block.text for block in of("text") if block.page == "README.md")
    assert shown in QUICK_START
    picture = (DOCS / "fact.svg").read_text(encoding="utf-8")
    answers = re.findall(r'<text class="(?:new|old)" x="(?:286|450)"[^>]*>([^<]+)<', picture)
    printed = " ".join(QUICK_START.split())
    assert len(answers) == 8 and all(answer in printed for answer in answers)
    for score, texts in (("generalization", "other wording"), ("locality", "neighbor")):
        percent, probes = re.findall(rf"│ {score} .*?│.*?│ ([\d.]+) .*?│.*?│.*?│ (\d+) ", QUICK_START)[0]
        count = f"{round(float(percent) * int(probes) / 100)} of {probes} {texts}"
        assert count in README and count in picture


def test_site_builds_without_a_warning_and_its_reference_is_not_empty(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement, which make docs turns off too
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    page = (tmp_path / "reference" / "training.html").read_text(encoding="utf-8")
    assert 'id="hf_ftedit.EditTrainer"' in page and "drop-in for" in page and "num_paraphrases" in page
    _, *sections = (
        (tmp_path / "reference" / "command_line.html").read_text(encoding="utf-8").split('<h2 id="hf-ftedit-')
    )
    for verb, section in zip(OPTIONS, sections, strict=True):
        listed = re.findall(r"<td><code[^>]*>--(\w+)</code>", section)
        assert listed == re.findall(r"^  --(\w+)", help_text(verb), re.MULTILINE), verb
    # Nothing is fetched from elsewhere, GitHub's number of stars neither.
    fetched = r'<(?:script|link|img|iframe)\b[^>]*="https?:|data-md-component="source"'
    assert not [path for path in tmp_path.rglob("*.html") if re.search(fetched, path.read_text(encoding="utf-8"))]
