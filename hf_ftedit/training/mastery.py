"""Which training rows the model knows already: they rest, and are reviewed now and then."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

ROW = "row"  # column with the number of a row, and entry of a batch
REVIEW = 4  # a row that rests is trained again in every so many epochs


class Mastery(TrainerCallback):
    """
    A collator that leaves out what the model knows, and the memory of what it knows.

    A row rests once the model gave its completion at least the probability `mastered`, in the forward pass that
    trained it. In every fourth epoch it is trained again, and goes on being trained where it was forgotten. What is
    known is put together over the processes between epochs. Steps and learning rates are those of a run that leaves
    nothing out: batches become smaller, not fewer.

    Args:
        collator (`Callable`):
            Makes a batch of rows.
        n_rows (`int`):
            How many rows there are; each has its number in the column `row`.
        mastered (`float`):
            Probability of the whole completion from which on a row is known, between 0 and 1.
        most (`Callable`):
            Gives the greatest of all processes' values, for a tensor.
    """

    def __init__(
        self, collator: Callable[..., dict[str, Any]], n_rows: int, mastered: float, most: Callable[..., torch.Tensor]
    ) -> None:
        self._collator, self._most = collator, most
        self._limit = -math.log(mastered)
        # Shared with the data loader's workers. `_epoch` is which epoch `_found` is of.
        self._losses = torch.full((n_rows,), math.inf).share_memory_()
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()
        self._found = torch.full((n_rows,), -math.inf)
        self._trained = 0  # row passes of the epochs before

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch of the rows that do not rest; of the least known one where all do."""
        if ROW not in rows[0]:
            return self._collator(rows)
        awake = [row for row in rows if not self.rests(row[ROW])]
        rows = awake or [max(rows, key=lambda row: float(self._losses[row[ROW]]))]
        batch = self._collator([{name: value for name, value in row.items() if name != ROW} for row in rows])
        return {**batch, ROW: torch.tensor([row[ROW] for row in rows])}

    def __getstate__(self) -> dict[str, Any]:
        """What a data loader's worker needs, where it is not a fork of this process."""
        return {**vars(self), "_most": None, "_found": None}

    def rests(self, row: int) -> bool:
        """Whether a row is left out in this epoch."""
        return bool(self._losses[row] <= self._limit) and (row + int(self._epoch)) % REVIEW != 0

    def note(self, rows: torch.Tensor, log_probs: torch.Tensor, places: torch.Tensor) -> None:
        """
        Keep how well rows are known.

        Args:
            rows (`torch.Tensor` of shape `(batch,)`):
                Their numbers.
            log_probs (`torch.Tensor` of shape `(targets,)`):
                Log-probability of each of their completions' tokens.
            places (`torch.Tensor` of shape `(targets,)`):
                The row of the batch that each belongs to.
        """
        self._found = self._found.to(rows.device)
        self._found[rows] = torch.zeros(len(rows), device=rows.device).index_add(0, places, -log_probs.detach())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing is known at the beginning."""
        if not state.global_step:
            self.load_state({"losses": math.inf, "found": -math.inf, "epoch": 0, "trained": 0})

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let rest what the last epoch found known."""
        if (epoch := int(state.epoch or 0)) != int(self._epoch):
            self._settle(epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how much was left out."""
        self._settle(int(self._epoch))
        passes = round(len(self._losses) * (state.epoch or 0))
        if state.is_world_process_zero and passes:
            logger.info(
                "trained %d of %d row passes; the others were skipped, as the row was mastered", self._trained, passes
            )

    def _settle(self, epoch: int) -> None:
        """Take over what was found in an epoch that is over."""
        found = self._most(self._found).cpu()
        seen = found.isfinite()
        self._losses[seen] = found[seen]
        self._trained += int(seen.sum())
        self._found.fill_(-math.inf)
        self._epoch.fill_(epoch)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold; all processes ask for it."""
        found = self._most(self._found).cpu()
        return {"losses": self._losses.clone(), "found": found, "epoch": int(self._epoch), "trained": self._trained}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._losses.copy_(torch.as_tensor(state["losses"]))
        self._found.copy_(torch.as_tensor(state["found"]))
        self._epoch.fill_(state["epoch"])
        self._trained = state["trained"]


def numbered(rows: Dataset) -> Dataset:
    """Rows with their numbers."""
    return rows.add_column(ROW, np.arange(len(rows)))
