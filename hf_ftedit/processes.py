"""Work that is shared out among the processes of `accelerate launch`: each item done once, and known to all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

Item = TypeVar("Item")


def process_state() -> PartialState:
    """This process among those of `accelerate launch`; without an accelerator they talk over gloo."""
    return PartialState(cpu=not torch.accelerator.is_available())


class Processes:
    """
    The processes that ask one model; of a model that is itself sharded over them, each asks everything.

    Args:
        model (`PreTrainedModel`):
            The model: with its weights sharded (FSDP, ZeRO-3), every process must run every batch.
    """

    def __init__(self, model: Any) -> None:
        state = process_state()
        self.is_main, self.rank = state.is_main_process, state.process_index
        sharded = any(hasattr(weight, "full_tensor") or hasattr(weight, "ds_id") for weight in model.parameters())
        self._first: int = 0 if sharded else state.process_index
        self.count: int = 1 if sharded else state.num_processes

    @property
    def hides_bar(self) -> bool | None:
        """What `tqdm` takes as `disable`: one process shows the bar, and only on a screen."""
        return None if self.is_main else True

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of `items`, which stand in an order that every process knows."""
        return list(items[self._first :: self.count])

    def gather(self, mine: Iterable[tuple[int, Any]], into: Any) -> None:
        """Put the (position, value) pairs of all processes into `into`."""
        if self.count > 1:
            for position, value in gather_object(list(mine)):
                into[position] = value
