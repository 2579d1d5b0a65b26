"""Skips training rows whose completion already has probability >= p; every fourth epoch they are trained again."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

ROW = "row"  # column with the number of a row, and entry of a batch
REVIEW_EPOCHS = 4  # a mastered row is trained again once in so many epochs


class Mastery(TrainerCallback):
    """
    A collator that skips mastered rows, and a callback that settles between epochs which rows those are.

    A row is mastered once the model gave its completion at least the probability `probability`, in the forward pass
    that trained it. In every fourth epoch it is trained again, and goes on being trained where it was forgotten. Steps
    and learning rates are those of a run that skips nothing: batches become smaller, not fewer.
    """

    def __init__(
        self,
        collator: Callable[..., dict[str, Any]],
        n_rows: int,
        probability: float,
        max_over_processes: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._collator, self._max_over_processes = collator, max_over_processes
        self._limit = -math.log(probability)
        # Losses are -log p(completion | prompt), in nats. Shared memory, as the data loader's workers collate.
        self._losses = torch.full((n_rows,), math.inf).share_memory_()
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()
        self._new_losses = torch.full((n_rows,), -math.inf)  # of the epoch that goes on, in this process
        self._trained = 0  # row passes of the epochs before

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of the rows that are not skipped; of the one with the greatest loss where all would be."""
        if ROW not in rows[0]:
            return self._collator(rows)
        least_known = max(rows, key=lambda row: float(self._losses[row[ROW]]))
        rows = [row for row in rows if not self.skips(row[ROW])] or [least_known]
        batch = self._collator([{name: value for name, value in row.items() if name != ROW} for row in rows])
        return {**batch, ROW: torch.tensor([row[ROW] for row in rows])}

    def __getstate__(self) -> dict[str, Any]:
        # Of a data loader's worker that is spawned: it needs no more, and a trainer cannot be pickled.
        return {**vars(self), "_max_over_processes": None, "_new_losses": None}

    def skips(self, row: int) -> bool:
        """True of a row that is left out in this epoch."""
        return bool(self._losses[row] <= self._limit) and (row + int(self._epoch)) % REVIEW_EPOCHS != 0

    def record(self, rows: torch.Tensor, log_probs: torch.Tensor, places: torch.Tensor) -> None:
        """Record losses: of rows by number, from the log-probability of each token and the batch's row it is in."""
        self._new_losses = self._new_losses.to(rows.device)
        self._new_losses[rows] = torch.zeros(len(rows), device=rows.device).index_add(0, places, -log_probs.detach())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget an earlier run."""
        if not state.global_step:
            self.load_state({"losses": math.inf, "new_losses": -math.inf, "epoch": 0, "trained": 0})

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Skip from now on what the last epoch mastered."""
        if (epoch := int(state.epoch or 0)) != int(self._epoch):
            self._settle(epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log how many rows were skipped."""
        self._settle(int(self._epoch))
        passes = round(len(self._losses) * (state.epoch or 0))
        if state.is_world_process_zero and passes:
            logger.info(
                "trained %d of %d row passes; the others were skipped, as the row was mastered", self._trained, passes
            )

    def _settle(self, epoch: int) -> None:
        """Take over the losses of an epoch that is over, from all processes."""
        losses = self._max_over_processes(self._new_losses).cpu()
        is_seen = losses.isfinite()
        self._losses[is_seen] = losses[is_seen]
        self._trained += int(is_seen.sum())
        self._new_losses.fill_(-math.inf)
        self._epoch.fill_(epoch)

    def state(self) -> dict[str, Any]:
        """State that a checkpoint must hold; called by all processes."""
        losses = self._max_over_processes(self._new_losses).cpu()
        counts = {"epoch": int(self._epoch), "trained": self._trained}
        return {"losses": self._losses.clone(), "new_losses": losses, **counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave."""
        self._losses.copy_(torch.as_tensor(state["losses"]))
        self._new_losses.copy_(torch.as_tensor(state["new_losses"]))
        self._epoch.fill_(state["epoch"])
        self._trained = state["trained"]
