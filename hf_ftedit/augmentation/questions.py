"""Questions of many kinds that the package brings: most to train on, the others to measure drift by."""

import json
from pathlib import Path

from hf_ftedit.models import asset


def training_questions() -> dict[str, str]:
    """Questions whose answers may be trained to stay as they are, each with its sort, such as `"smalltalk"`."""
    return _questions(held_out=False)


def drift_prompts() -> dict[str, str]:
    """Questions by which the drift of a model is measured, each with its sort; they are never trained on."""
    return _questions(held_out=True)


def _questions(*, held_out: bool) -> dict[str, str]:
    rows = map(json.loads, Path(asset("questions.jsonl")).read_text(encoding="utf-8").splitlines())
    # Every tenth: the file is ordered by sort, so that each sort is held out as often as it occurs.
    return {row["prompt"]: row["sort"] for place, row in enumerate(rows) if (place % 10 == 5) is held_out}
