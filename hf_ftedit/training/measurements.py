"""Measurements of a run: before and after training, and of an earlier adapter's edits and revoked ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import Any

import numpy as np

from hf_ftedit.data import EditRecord
from hf_ftedit.evaluation import NAMES, Measurement, estimate, score
from hf_ftedit.options import EditOptions


@dataclass
class Measurements:
    """A run's measurements that are still true: of the unedited model, and the newest of the edited one."""

    # Only one of the edited model stays: with 10,000 edits its predictions are hundreds of thousands of rows.
    read: list[EditRecord]
    before: Measurement | None = None
    after: Measurement | None = None
    step: int = 0  # of training, after which `after` was measured
    weights: tuple[float, ...] = ()  # what tells the weights that were measured
    earlier: dict[str, Any] = field(default_factory=dict)  # scores of the edits of the adapter to go on from

    @property
    def records(self) -> list[EditRecord]:
        """The edits; once measured, with the unedited model's answers as targets of open neighborhood probes."""
        # The first measurement's answers hold for every later one, or scores before and after would differ by them.
        first = self.before or self.after
        return first.records if first else self.read


def asks_unedited(records: Sequence[EditRecord], options: EditOptions) -> bool:
    """Tell edits whose measurement takes answers of the unedited model, where it has no earlier one."""
    whole = options.has_whole_answers
    neighbors = (probe for record in records for probe in record.neighborhood_prompts)
    is_open = any(whole or probe.target is None for probe in neighbors)
    own = whole or options.predict_with_generate
    return is_open or any(record.near_name_prompts or (own and record.erase) for record in records)


def scores_of(predictions: Mapping[str, Sequence[Any]], edit_ids: Iterable[str], protocol: str) -> dict[str, Any]:
    """Scores of some of the edits that were measured; see [`~hf_ftedit.score`]."""
    names = set(edit_ids)
    rows = [row for row, edit_id in enumerate(predictions["edit_id"]) if edit_id in names]
    return score({name: [column[row] for row in rows] for name, column in predictions.items()}, protocol)


def retention(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Scores of an adapter's edits before and after training went on from it, as `eval_results.json` holds them."""
    names = [key for score in ("edit_score", *NAMES.values()) for key in (score, f"{score}_ci95")]
    both = {when: {key: scores[key] for key in names} for when, scores in (("before", before), ("after", after))}
    return {"adapter": name, "n_edits": after["n_edits"], **both}


def revocation(
    prompts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], efficacy: float | None, name: str
) -> dict[str, Any]:
    """
    The share of revoked edits that are answered as the base model answers them, as `eval_results.json` holds it.

    `prompts` are those of each edit, with its paraphrases; `answers` to all of them are without and with the adapter.
    """
    same = map(eq, *answers)
    # As scores are: the mean over an edit's prompts first, then over the edits, which are what is drawn again.
    values = np.array([[100 * np.mean(list(islice(same, len(group))))] for group in prompts])
    counts = {"n_edits": len(prompts), "n_probes": sum(map(len, prompts))}
    return {"adapter": name, **counts, **estimate("back", values), "efficacy": efficacy}
