"""The README's Python is run, its commands are parsed, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from running import run

from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.grid import read_grid

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_turn_and_edit_the_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks("python")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(script).rstrip().endswith("The capital of France is Lyon\n100.0\nTrue")
    assert (tmp_path / "paris-edit" / "adapter_model.safetensors").is_file()


def test_make_verbs_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    verbs = re.findall(r"^make ([a-z-]+)", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert set(verbs) == {"demo", "demo-chat", "test"} and set(verbs) <= set(targets)


_OF_EVERY_RUN = ["--model_name_or_path", "Qwen/Qwen3-8B", "--edits", "edits.jsonl"]


@pytest.mark.parametrize(
    "command", [line for block in blocks("text") for line in block.replace("\\\n", " ").splitlines() if line]
)
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, verb, *args = shlex.split(command)
    if program == "accelerate":
        verb, *args = args[args.index("hf_ftedit") + 1 :]
    else:
        assert program == "hf-ftedit"
    arguments = read_arguments(verb, args)
    options = arguments.options()
    if verb == "sweep":
        assert read_grid(options.grid) and arguments.flags == _OF_EVERY_RUN
        return
    assert verb in ("push", "verify", "merge") or options.adapter or options.model_name_or_path == "Qwen/Qwen3-8B"
    often = ["--save_strategy", "steps", "--save_steps"]
    assert arguments.flags in ([], ["--load_in_4bit"], [*often, "100"], [*often, "1000"])


def test_example_edit_is_valid_json_lines(tmp_path: Path) -> None:
    from hf_ftedit.data.readers import read_edits

    (tmp_path / "edits.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    assert [record.target_new for record in read_edits(tmp_path / "edits.jsonl")] == ["Astana"]


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
