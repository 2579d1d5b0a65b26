"""Save the scores and predictions of an evaluation as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_ftedit.evaluation.scoring import TYPES
from hf_ftedit.files import moved_in, write_text

RESULTS_FILE = "eval_results.json"


def save_results_folder(
    folder: str | Path, results: dict[str, Any], predictions: dict[str, dict[str, list[Any]]]
) -> None:
    """Write scores as `eval_results.json`, and the columns of each measurement's predictions as one Parquet file."""
    from datasets import Dataset, Features, Value

    features = Features({name: Value(kind) for name, kind in TYPES.items()})
    with moved_in(Path(folder)) as new:
        for when, columns in predictions.items():
            whole = {name: columns.get(name, [None] * len(columns["edit_id"])) for name in TYPES}
            Dataset.from_dict(whole, features).to_parquet(str(new / f"predictions-{when}.parquet"))
        write_text(new / RESULTS_FILE, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
