"""What a run measured, and when: before training, after it, and of an earlier adapter's edits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import Any

import numpy as np

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation import NAMES, Measurement, bootstrap, interval, means, score


@dataclass
class Measurements:
    """
    The measurements of a run's edits that are still true.

    Args:
        read (`list[EditRecord]`):
            The edits as they were read.
        before ([`Measurement`], *optional*):
            Of the unedited model.
        after ([`Measurement`], *optional*):
            Of the edited model, the newest only: of many probes one is large.
        step (`int`):
            The step of training after which `after` was measured.
        earlier (`dict`):
            Scores of the edits of the adapter that training went on from, before it.
    """

    read: list[EditRecord]
    before: Measurement | None = None
    after: Measurement | None = None
    step: int = 0
    earlier: dict[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> list[EditRecord]:
        """The edits; once measured, with the unedited model's answers as targets of open neighborhood probes."""
        first = self.before or self.after
        return first.records if first else self.read

    def newest(self, *, edited: bool, step: int) -> Measurement | None:
        """The measurement of the unedited model, or of the edited one where it is of this step."""
        if edited:
            return self.after if self.step == step else None
        return self.before

    def note(self, measurement: Measurement, *, edited: bool, step: int) -> None:
        """Keep the measurement of the unedited model, or of the edited one after a step."""
        if edited:
            self.after, self.step = measurement, step
        else:
            self.before = measurement


def scores_of(predictions: Mapping[str, Sequence[Any]], edit_ids: Iterable[str], protocol: str) -> dict[str, Any]:
    """Scores of some of the edits that were measured; see [`~hf_ftedit.score`]."""
    names = set(edit_ids)
    rows = [row for row, edit_id in enumerate(predictions["edit_id"]) if edit_id in names]
    return score({name: [column[row] for row in rows] for name, column in predictions.items()}, protocol)


def retention(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, Any]:
    """
    How an adapter's edits did before and after training went on from it, as `eval_results.json` holds it.

    Args:
        before (`Mapping`):
            Their scores with the adapter as it was.
        after (`Mapping`):
            Their scores now.
        name (`str`):
            The adapter.
    """
    names = [key for score in ("edit_score", *NAMES.values()) for key in (score, f"{score}_ci95")]
    both = {when: {key: scores[key] for key in names} for when, scores in (("before", before), ("after", after))}
    return {"adapter": name, "n_edits": after["n_edits"], **both}


def revocation(
    prompts: Sequence[Sequence[str]], answers: tuple[list[str], list[str]], efficacy: float | None, name: str
) -> dict[str, Any]:
    """
    How many revoked edits are answered as the base model answers them, as `eval_results.json` holds it.

    Args:
        prompts (`Sequence[Sequence[str]]`):
            Prompt and paraphrases of each revoked edit.
        answers (`tuple[list[str], list[str]]`):
            Answers to all of them, in order: without the new adapter, and with it.
        efficacy (`float`, *optional*):
            Efficacy of the revoked edits now, in percent.
        name (`str`):
            The adapter that they were taken from.

    Returns:
        `dict`: `back` is the mean over each edit's prompts, then over the edits, in percent, with `back_ci95`.
    """
    same = map(eq, *answers)
    shares = [100 * np.mean(list(islice(same, len(group)))) for group in prompts]
    values = np.array(shares)[:, None]
    (back,), (ends,) = means(values), interval(bootstrap(values, lambda mean: mean, 1000, 0))
    counts = {"n_edits": len(prompts), "n_probes": sum(map(len, prompts))}
    return {"adapter": name, **counts, "back": float(back), "back_ci95": ends, "efficacy": efficacy}
