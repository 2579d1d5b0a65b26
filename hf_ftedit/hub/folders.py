"""Folders of augmented datasets, with their cards, and of scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.evaluation import TYPES
from hf_ftedit.files import moved_in, write_text
from hf_ftedit.hub.card import dataset_card
from hf_ftedit.models import public_name

if TYPE_CHECKING:
    from datasets import DatasetDict

RESULTS_FILE = "eval_results.json"
CARD_FILE = "README.md"


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


def filled(dataset: DatasetDict) -> DatasetDict:
    """The splits that have rows."""
    return type(dataset)({name: split for name, split in dataset.items() if len(split)})


def card_of_dataset(settings: Mapping[str, Any], splits: DatasetDict, metadata: dict[str, Any]) -> str:
    """The card of an augmented dataset; files among the settings are called by their own names alone."""
    public = {name: public_name(value) if isinstance(value, str) else value for name, value in settings.items()}
    rows = splits["train"].take(min(100, len(splits["train"]))).to_list() if "train" in splits else []
    shown = rows if rows and {"prompt", "completion", "kind"} <= set(rows[0]) else []
    return dataset_card(public, {name: len(split) for name, split in splits.items()}, metadata, shown)
