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
    return _questions(held_out=False)


def drift_prompts() -> dict[str, str]:
    """Questions by which the drift of a model is measured, each with its sort; they are never trained on."""
    return {question.prompt: question.sort for question in _questions(held_out=True)}


def _questions(*, held_out: bool) -> list[Question]:
    lines = Path(asset("questions.jsonl")).read_text(encoding="utf-8").splitlines()
    # Every tenth: the file is ordered by sort, so that each sort is held out as often as it occurs.
    return [Question(**json.loads(line)) for place, line in enumerate(lines) if (place % 10 == 5) is held_out]
