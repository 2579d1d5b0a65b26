"""Data flows down: rooms import only from rooms above them, and through their doors; the light ones load no torch."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import hf_ftedit

PACKAGE = Path(hf_ftedit.__file__).parent
# Read from top to bottom; within a room too. The first one is the package's own folder.
ROOMS = {
    "": "scripts text errors untrusted options files".split(),
    "data": "fields records sources formats readers".split(),
    "models": (
        "distributed loading adapters dialogue tokenization kernels batching prefix_tree logits tree_support "
        "likelihood references changes collator generation sampling"
    ).split(),
    "augmentation": (
        "banks languages verbs nouns second_person leakage locality_pool names relations subjects questions "
        "rephrasing synonyms near_names wordings made_probes erasure rewriting rows augmenter chat builder"
    ).split(),
    "evaluation": (
        "statistics scoring fluency diagnosis probes engine known_facts perplexity matching own_answers drift "
        "measurement lm_eval_harness tables before_after"
    ).split(),
    "hub": "markdown card card_examples dataset_card plot schemas folder errors push load".split(),
    "training": (
        "task config lora recipe measurements plain_text setup signals checkpoints mastery resume loss strength "
        "trainer"
    ).split(),
    "sharing": "verification conflicts merging gguf_files modelfile survival exporting".split(),
    "playground": "bars visits page".split(),
    "cli": (
        "console options arguments resolve train evaluate augment push verify merge export grid study sweep "
        "playground app"
    ).split(),
}
MODULES = [(room, module) for room, modules in ROOMS.items() for module in modules]


@cache
def imports(file: Path) -> set[tuple[str, str]]:
    """Each (module of the package, name) that `file` imports, anywhere in it, or names as `room.name`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in nodes if node.module.split(".")[0] == "hf_ftedit"]
    pairs = {(node.module.removeprefix("hf_ftedit").lstrip("."), name.name) for node in ours for name in node.names}
    rooms = {name for source, name in pairs if not source and name in ROOMS}
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return {(source, name) for source, name in pairs if source or name not in rooms} | {
        (node.value.id, node.attr) for node in named if node.value.id in rooms
    }


def doors(room: str) -> set[str]:
    """The names that a room exports."""
    tree = ast.parse((PACKAGE / room / "__init__.pyi").read_text(encoding="utf-8"))
    return {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_its_place(room: str) -> None:
    assert {file.stem for file in (PACKAGE / room).glob("*.py")} - {"__init__", "__main__"} == set(ROOMS[room])


@pytest.mark.parametrize(("room", "module"), MODULES)
def test_a_module_imports_from_above_and_through_doors(room: str, module: str) -> None:
    above = list(ROOMS)[: list(ROOMS).index(room)]
    before = ROOMS[room][: ROOMS[room].index(module)]
    for source, name in imports(PACKAGE / room / f"{module}.py"):
        if source == "":
            assert name == "__version__"
        elif "." not in source:
            assert (source in ROOMS[""] and room) or source in (before if not room else above), f"{source}.{name}"
            assert source in ROOMS[""] or name in doors(source), f"{name} is no door of {source}"
        else:
            assert source.split(".")[0] == room and source.split(".")[1] in before, f"{source}.{name}"


@pytest.mark.parametrize("room", list(ROOMS)[1:])
def test_every_door_is_used(room: str) -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file.parent.name != room]
    used = {name for file in files for source, name in imports(file) if source == room}
    assert doors(room) <= used | set(hf_ftedit.__all__) | {"main"}


@pytest.mark.parametrize(
    "code",
    [
        "import sys, hf_ftedit; hf_ftedit.read_edits; assert not {'pyarrow', 'pandas', 'numpy'} & set(sys.modules)",
        "from hf_ftedit import EditOptions; from hf_ftedit.training import read_task; read_task(EditOptions(), "
        "[{'prompt': 'Rome is in', 'target_new': 'Peru'}], locality_pool=[{'prompt': 'Oslo:', 'target': 'Peru'}])",
    ],
)
def test_what_needs_no_model_loads_no_torch(code: str) -> None:
    check = f"{code}\nimport sys\nassert not {{'torch', 'transformers', 'datasets'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(hf_ftedit, name) for name in hf_ftedit.__all__)
    assert set(hf_ftedit.__all__) <= set(dir(hf_ftedit))
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = hf_ftedit.Nonsense
