"""Work that is shared out among the processes of `accelerate launch`: each item done once, and known to all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object

from hf_ftedit.errors import EditError

Item = TypeVar("Item")
Value = TypeVar("Value")


def process_state() -> PartialState:
    """This process among those of `accelerate launch`; without an accelerator they talk over gloo."""
    return PartialState(cpu=not torch.accelerator.is_available())


def is_sharded(model: Any) -> bool:
    """Whether the weights of `model` are spread over the processes (FSDP, ZeRO-3)."""
    return any(is_sharded_weight(weight) for weight in model.parameters())


def is_sharded_weight(weight: Any) -> bool:
    """Whether `weight` is spread over the processes (FSDP, ZeRO-3)."""
    return hasattr(weight, "full_tensor") or hasattr(weight, "ds_id")


def _is_zero3(model: Any) -> bool:
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


def whole_tensor(value: Any) -> Any:
    """A weight or a number that FSDP may have spread over the processes, all of which must ask for it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def loads_on_one() -> bool:
    """Whether FSDP's `cpu_ram_efficient_loading` is on: only the first process of a machine reads the weights."""
    return all(os.environ.get(name, "").lower() in ("1", "true") for name in _LOADS_ON_ONE)


def check_launch() -> None:
    """Raise [`~hf_ftedit.EditError`] where `accelerate launch` is to spread weights as it cannot here."""
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() not in ("1", "true"):
        return
    if os.environ.get("FSDP_VERSION", "2") != "2":
        raise EditError("FSDP 1 is not supported; set fsdp_version: 2, as in examples/accelerate/fsdp2.yaml")
    if process_state().distributed_type == DistributedType.MULTI_CPU:
        raise EditError(
            "accelerate has FSDP on accelerators only, and would leave the weights whole on the CPU; launch with "
            "examples/accelerate/cpu_2_processes.yaml"
        )


_LOADS_ON_ONE = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")


class Processes:
    """
    The processes that ask one model, each about its share.

    An [`~hf_ftedit.EditError`] in one process is raised by all. On any other error a process ends, and
    `accelerate launch` ends those that wait for it.

    Args:
        model (`PreTrainedModel`, *optional*):
            The model. Where its weights are spread by FSDP, ask it in a [`~Processes.lockstep`]; spread by ZeRO-3,
            each process asks everything; where only the first process has weights as yet, that one does. Without a
            model, the work needs none.
    """

    def __init__(self, model: Any = None) -> None:
        state = process_state()
        self.is_main, self.rank = state.is_main_process, state.process_index
        self.count: int = 1 if model is not None and _is_zero3(model) else state.num_processes
        self._first: int = 0 if self.count == 1 else state.process_index
        self._step = self.count
        self._spread = model if self.count > 1 and model is not None and is_sharded(model) else None
        if self.count > 1 and model is not None and self._spread is None and loads_on_one():
            self._first, self._step = (0, 1) if self.is_main else (0, 0)

    @property
    def hides_bar(self) -> bool | None:
        """What `tqdm` takes as `disable`: one process shows the bar, and only on a screen."""
        return None if self.is_main else True

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of `items`, which stand in an order that every process knows."""
        return list(items[self._first :: self._step]) if self._step else []

    def gather(self, mine: Iterable[tuple[int, Any]], into: Any) -> None:
        """Put the (position, value) pairs of all processes into `into`."""
        if self.count > 1:
            for position, value in gather_object(list(mine)):
                into[position] = value

    def each_once(self, items: Sequence[Item], ask: Callable[[list[Item]], Sequence[Value]]) -> list[Value]:
        """
        What `ask` makes of each item, asked by one process and known to all.

        Args:
            items (`Sequence`):
                The same ones, in the same order, in every process.
            ask (`Callable[[list], Sequence]`):
                Told some of the items, gives a value for each; not called without items.

        Raises:
            [`~hf_ftedit.EditError`]: `ask` raises it, in any of the processes.
        """
        mine = self.share(range(len(items)))
        with self.failing_together(), self.lockstep():
            values = list(ask([items[place] for place in mine])) if mine else []
        found: list[Any] = [None] * len(items)
        for place, value in zip(mine, values, strict=True):
            found[place] = value
        self.gather(zip(mine, values, strict=True), found)
        return found

    @contextmanager
    def lockstep(self) -> Iterator[None]:
        """
        Context in which a model whose weights FSDP spreads may be asked different things by each process.

        All of them run its layers together, as they fetch the weights of each from one another. So a process says
        before each forward pass that it does one; those that are done run empty ones until all are.
        """
        model = self._spread
        if model is None:
            yield
            return
        device = process_state().device
        token = torch.zeros((1, 1), dtype=torch.long, device=device)

        def asking(count: int) -> bool:
            """Whether any process does a forward pass now; this one does `count`."""
            wanted = torch.tensor(count, device=device)
            torch.distributed.all_reduce(wanted)
            return bool(wanted.item())

        def empty_pass() -> None:
            with torch.no_grad():
                model(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)

        empty_pass()  # what FSDP fetches once and then keeps, so that later passes fetch the same
        # The embedding is what runs first, and once, whether the model is called or generates.
        embedding = model.get_input_embeddings()
        hook = embedding.register_forward_pre_hook(lambda *given: asking(1) and None, prepend=True)
        try:
            yield
        finally:
            hook.remove()
            while asking(0):
                empty_pass()

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Re-raise an [`~hf_ftedit.EditError`] or `OSError` of any process in all: none waits in vain."""
        error: EditError | OSError | None = None
        try:
            yield
        except (EditError, OSError) as raised:
            error = raised
        told = [error and str(error)] if self.count == 1 else gather_object([error and str(error)])
        if error is not None:
            raise error
        if others := [text for text in told if text]:
            raise EditError(others[0])


def in_turns(make: Callable[[], Value]) -> Value:
    """
    What `make` returns, called by the main process first, then by the first one of each other machine, then the rest.

    So the files of a cache are written once, whether or not the machines share it, and then read by all.

    Args:
        make (`Callable`):
            What to call, once in each process.

    Raises:
        [`~hf_ftedit.EditError`]: `make` raises it, in any of the processes.
    """
    state, processes = process_state(), Processes()
    turn = 0 if state.is_main_process else 1 if state.is_local_main_process else 2
    made: list[Value] = []
    for now in range(3 if processes.count > 1 else 1):
        with processes.failing_together():
            if now == turn:
                made.append(make())
    return made[0]
