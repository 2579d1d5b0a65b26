"""Questions of many kinds that the package brings: most to train on, the others to measure drift by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from hf_ftedit.models import asset


class Question(NamedTuple):
    """A question, and its sort, such as `"facts"` or `"smalltalk"`."""

    sort: str
    prompt: str


def training_questions() -> list[Question]:
    """Questions whose answers may be trained to stay as they are."""
    return [question for place, question in enumerate(_questions()) if not _is_held_out(place)]


def drift_prompts() -> list[str]:
    """Questions by which the drift of a model is measured; they are never trained on."""
    return [question.prompt for place, question in enumerate(_questions()) if _is_held_out(place)]


def _is_held_out(place: int) -> bool:
    """Every tenth: the file is ordered by sort, so that each sort is held out as often as it occurs."""
    return place % 10 == 5


def _questions() -> list[Question]:
    lines = Path(asset("questions.jsonl")).read_text(encoding="utf-8").splitlines()
    return [Question(**json.loads(line)) for line in lines]
