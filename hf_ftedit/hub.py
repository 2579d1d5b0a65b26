"""The only file that writes an adapter folder; pushing one to the Hub will live here too."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_ftedit.card import dataset_card, model_card
from hf_ftedit.recipe import public_name
from hf_ftedit.records import EditError, EditRecord, write_jsonl

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedTokenizerBase

ADAPTER_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "README.md",
    "edits.jsonl",
    "eval_results.json",
    "edit_config.yaml",
)


def require_empty(folder: str | Path) -> None:
    """Raise [`~hf_ftedit.records.EditError`] where `folder` exists with content: nothing is overwritten."""
    path = Path(folder)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise EditError(f"output_dir {str(folder)!r} exists and is not empty; give another --output_dir or remove it")


def save_edit_folder(
    folder: str | Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    records: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
    answers: Sequence[tuple[str, str]] = (),
    state_dict: dict[str, Any] | None = None,
) -> None:
    """
    Write an edited model: for an adapter exactly the files of `ADAPTER_FILES`.

    The files are written to a temporary folder beside `folder` and moved in when all are complete.

    Args:
        folder (`str` or `Path`):
            Where to; files of the same names are replaced.
        model ([`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]):
            The edited model; a whole model is saved with its tokenizer.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        records (`Sequence[EditRecord]`):
            The edits.
        results (`dict`):
            Scores before and after, see [`~hf_ftedit.EditTrainer.edit_results`].
        recipe (`dict`):
            Settings that reproduce it, see [`~hf_ftedit.recipe.recipe_of`].
        answers (`Sequence[tuple[str, str]]`, *optional*):
            What the model said to the first edits' prompts before, and says after, for the card.
        state_dict (`dict`, *optional*):
            Gathered weights of a sharded model.
    """
    adapter = hasattr(model, "peft_config")
    with _moved_in(Path(folder)) as new:
        if adapter:
            model.save_pretrained(new, state_dict=state_dict, save_embedding_layers=False)
            _hide_local_base(new / "adapter_config.json")
        else:
            model.save_pretrained(new, state_dict=state_dict)
            tokenizer.save_pretrained(new)
        write_jsonl(records, new / "edits.jsonl")
        _write(new / "eval_results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        _write(new / "edit_config.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        _write(
            new / "README.md", model_card(records, results, recipe, adapter=adapter, answers=answers)
        )  # PEFT wrote one too


def save_dataset_folder(folder: str | Path, dataset: DatasetDict, config: dict[str, Any]) -> None:
    """
    Write an augmented dataset as one Parquet file a split, with its card; `load_dataset(folder)` reads it.

    Args:
        folder (`str` or `Path`):
            Where to.
        dataset (`DatasetDict`):
            The splits; empty ones are left out.
        config (`dict`):
            Settings of the augmentation, for the card.
    """
    sizes = {name: len(split) for name, split in dataset.items() if len(split)}
    with _moved_in(Path(folder)) as new:
        for name in sizes:
            dataset[name].to_parquet(str(new / f"{name}.parquet"))
        _write(new / "README.md", dataset_card(config, sizes))


def save_results_folder(
    folder: str | Path, results: dict[str, Any], predictions: dict[str, dict[str, list[Any]]]
) -> None:
    """
    Write scores as `eval_results.json`, and the predictions they come from as one Parquet file for each measurement.

    Args:
        folder (`str` or `Path`):
            Where to.
        results (`dict`):
            Scores by measurement, such as `"before"`.
        predictions (`dict`):
            Columns of predictions by measurement, see [`~hf_ftedit.evaluation.predict`].
    """
    from datasets import Dataset

    with _moved_in(Path(folder)) as new:
        for when, columns in predictions.items():
            Dataset.from_dict(columns).to_parquet(str(new / f"predictions-{when}.parquet"))
        _write(new / "eval_results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _moved_in(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, whose files are moved there when the block ends well."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield new
        _open_to_others(new)
        if not folder.exists():
            new.rename(folder)
            return
        for file in sorted(new.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """The usual permissions for what was made private as temporary files are."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def _hide_local_base(path: Path) -> None:
    """PEFT records where the base model was loaded from; a folder of this machine is nobody else's business."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = public_name(config["base_model_name_or_path"] or "")
    _write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
