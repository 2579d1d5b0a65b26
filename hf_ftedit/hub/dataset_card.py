"""Save an augmented dataset as a folder with its card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ftedit.files import moved_in, write_text
from hf_ftedit.hub.card import rendered, yaml_text
from hf_ftedit.models import public_name

if TYPE_CHECKING:
    from datasets import DatasetDict

TAGS = ["hf-ftedit", "model-editing"]
SHOWN_ROWS = 2  # of each kind
READ_ROWS = 100  # the first ones, among which those that are shown are looked for


def save_dataset_folder(folder: str | Path, dataset: DatasetDict, config: dict[str, Any]) -> None:
    """Write a dataset as one Parquet file for each split with rows, and its card; `load_dataset(folder)` reads it."""
    splits = filled(dataset)
    data_files = [{"split": name, "path": f"{name}.parquet"} for name in splits]
    metadata = {"configs": [{"config_name": "default", "data_files": data_files}]}
    with moved_in(Path(folder)) as new:
        for name, split in splits.items():
            split.to_parquet(str(new / f"{name}.parquet"))
        write_text(new / "README.md", card_of_dataset(config, splits, metadata))


def filled(dataset: DatasetDict) -> DatasetDict:
    """The splits that have rows."""
    return type(dataset)({name: split for name, split in dataset.items() if len(split)})


def card_of_dataset(settings: Mapping[str, Any], splits: DatasetDict, metadata: dict[str, Any]) -> str:
    """The card of an augmented dataset; files among the settings are called by their own names alone."""
    public = {name: public_name(value) if isinstance(value, str) else value for name, value in settings.items()}
    sizes = {name: len(split) for name, split in splits.items()}
    rows = splits["train"].take(min(READ_ROWS, sizes["train"])).to_list() if "train" in splits else []
    # Rows of one's own may be tokens, which nobody can read.
    is_text = rows and {"prompt", "completion", "kind"} <= set(rows[0])
    return dataset_card(public, sizes, metadata, rows if is_text else [])


def dataset_card(
    config: dict[str, Any], sizes: dict[str, int], metadata: dict[str, Any], rows: Iterable[Mapping[str, str]] = ()
) -> str:
    """The card of an augmented dataset: metadata, sizes of its splits, the first rows of each kind, settings."""
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    return rendered(
        "dataset_card.md",
        # Others' tags stay in front: they chose them.
        metadata=yaml_text({**metadata, "tags": list(dict.fromkeys([*(metadata.get("tags") or ()), *TAGS]))}),
        settings=yaml_text(config),
        is_chat=config.get("chat_template"),
        sizes=sizes,
        shown=[row for several in kinds.values() for row in several[:SHOWN_ROWS]],
    )
