"""Folders that are written whole or not at all: a temporary one first, then moved in. Datasets and scores."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.disk import disk_errors, require_writable
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import TYPES
from hf_ftedit.hub.card import dataset_card
from hf_ftedit.models import public_name

if TYPE_CHECKING:
    from datasets import DatasetDict

RESULTS_FILE = "eval_results.json"
CARD_FILE = "README.md"
UNFINISHED = "unfinished"  # folder of an evaluation's journals, until its results are written


def require_empty(folder: str | Path, *, resume: bool = False) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where `folder` exists with content, or cannot be made or written to.

    Args:
        folder (`str` or `Path`):
            Where something is to be written.
        resume (`bool`, *optional*, defaults to `False`):
            Whether an unfinished evaluation may be there, and nothing else.
    """
    path = Path(folder)
    if path.is_dir() and [item.name for item in path.iterdir()] == [UNFINISHED]:
        if resume:
            return
        raise EditError(
            f"output_dir {str(folder)!r} holds an evaluation that was stopped; add --resume to go on with it, "
            "or remove the folder"
        )
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise EditError(f"output_dir {str(folder)!r} exists and is not empty; give another --output_dir or remove it")
    require_writable(folder)


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
    splits = filled(dataset)
    data_files = [{"split": name, "path": f"{name}.parquet"} for name in splits]
    metadata = {"configs": [{"config_name": "default", "data_files": data_files}]}
    with moved_in(Path(folder)) as new:
        for name, split in splits.items():
            split.to_parquet(str(new / f"{name}.parquet"))
        write_text(new / CARD_FILE, card_of_dataset(config, splits, metadata))


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
            Columns of predictions by measurement, see [`~hf_ftedit.predict`].
    """
    from datasets import Dataset, Features, Value

    features = Features({name: Value(kind) for name, kind in TYPES.items()})
    with moved_in(Path(folder)) as new:
        for when, columns in predictions.items():
            whole = {name: columns.get(name, [None] * len(columns["edit_id"])) for name in TYPES}
            Dataset.from_dict(whole, features).to_parquet(str(new / f"predictions-{when}.parquet"))
        write_text(new / RESULTS_FILE, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(Path(folder) / UNFINISHED, ignore_errors=True)


def filled(dataset: DatasetDict) -> DatasetDict:
    """The splits that have rows."""
    return type(dataset)({name: split for name, split in dataset.items() if len(split)})


def card_of_dataset(settings: Mapping[str, Any], splits: DatasetDict, metadata: dict[str, Any]) -> str:
    """The card of an augmented dataset; files among the settings are called by their own names alone."""
    public = {name: public_name(value) if isinstance(value, str) else value for name, value in settings.items()}
    rows = splits["train"].take(min(100, len(splits["train"]))).to_list() if "train" in splits else []
    shown = rows if rows and {"prompt", "completion", "kind"} <= set(rows[0]) else []
    return dataset_card(public, {name: len(split) for name, split in splits.items()}, metadata, shown)


@contextmanager
def moved_in(folder: Path, replaced: Collection[str] = ()) -> Iterator[Path]:
    """
    A temporary folder beside `folder`, or in it where it exists, whose files move there if the block ends well.

    Args:
        folder (`Path`):
            Where to; files of the same names are replaced.
        replaced (`Collection[str]`, *optional*):
            Names of files in it that go as well.
    """
    with disk_errors(f"output_dir {str(folder)!r}"):
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Inside a folder that exists: its parent may be another file system, or not ours to write to.
        place = folder if folder.is_dir() else folder.parent
        new = Path(tempfile.mkdtemp(prefix=moving_prefix(folder), dir=place))
        try:
            yield new
            _open_to_others(new)
            if not folder.exists():
                new.rename(folder)
                return
            for name in set(replaced) - {file.name for file in new.iterdir()}:
                (folder / name).unlink(missing_ok=True)
            for file in sorted(new.iterdir()):
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def moving_prefix(folder: Path) -> str:
    """How the name of the temporary folder of `folder` begins; eight characters follow."""
    return f".hf_ftedit-{folder.absolute().name}-"


def _open_to_others(folder: Path) -> None:
    """The usual permissions for what was made private as temporary files are."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def write_text(path: Path, text: str) -> None:
    """UTF-8, with the same line ends everywhere."""
    path.write_text(text, encoding="utf-8", newline="\n")
