"""Data flows down one list of modules: each imports only from those above it, and the light ones load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hf_ftedit"
ORDER = [
    "errors",
    "fields",
    "records",
    "disk",
    "stopping",
    "console",
    "sources",
    "formats",
    "readers",
    "options",
    "arguments",
    "resampling",
    "predictions",
    "scoring",
    "score_text",
    "answers",
    "fluency",
    "diagnosis",
    "processes",
    "loading",
    "tokenization",
    "collator",
    "inference",
    "logits",
    "memory",
    "packing",
    "likelihood",
    "decoding",
    "sampling",
    "generation",
    "probes",
    "journal",
    "asking",
    "perplexity",
    "overlap",
    "pool",
    "similarity",
    "augmentation",
    "dataset",
    "evaluation",
    "harness",
    "config",
    "lora",
    "recipe",
    "examples",
    "markdown",
    "card_metadata",
    "card_rows",
    "card",
    "plot",
    "report",
    "folders",
    "edit_folder",
    "checkpoints",
    "hub_errors",
    "hub",
    "published",
    "continuing",
    "preparation",
    "guard",
    "mastery",
    "resumable",
    "conditional",
    "trainer",
    "verification",
    "conflicts",
    "parts",
    "composition",
    "sharing",
    "inputs",
    "editing",
    "cli",
    "__main__",
]


def imported(module: str) -> set[str]:
    """Modules of the package that `module` imports, anywhere in it."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("hf_ftedit.")}


def test_every_module_has_its_place() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_above_it(module: str) -> None:
    assert imported(module) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize(
    "code",
    [
        "import hf_ftedit",
        "import hf_ftedit; hf_ftedit.read_edits",
        "from hf_ftedit.cli import main; main(['--help'])",
        "from hf_ftedit.cli import main; main(['train', '--help'])",
        "from hf_ftedit.cli import main; main(['train', '--edits', 'missing.json'])",
    ],
)
def test_what_needs_no_model_loads_no_torch(code: str) -> None:
    check = f"{code}\nimport sys\nassert not {{'torch', 'transformers', 'datasets'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported() -> None:
    import hf_ftedit

    assert all(getattr(hf_ftedit, name) for name in hf_ftedit.__all__)
    assert set(hf_ftedit.__all__) <= set(dir(hf_ftedit))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = hf_ftedit.Nonsense
