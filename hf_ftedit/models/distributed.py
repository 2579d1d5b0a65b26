"""Work shared out over the processes of `accelerate launch`: each item is run once, and all get its result."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list, gather_object, parse_flag_from_env

from hf_ftedit.errors import EditError

Item = TypeVar("Item")
Value = TypeVar("Value")


def process_state() -> PartialState:
    """This process among those of `accelerate launch`; without an accelerator they talk over gloo."""
    return PartialState(cpu=not torch.accelerator.is_available())


def from_main(value: Value) -> Value:
    """The value of the main process, in every process; all must call this."""
    return broadcast_object_list([value])[0] if process_state().num_processes > 1 else value


def is_sharded(model: Any) -> bool:
    """Tell whether the weights of `model` are sharded over the processes (FSDP, ZeRO-3)."""
    return any(is_sharded_weight(weight) for weight in model.parameters())


def is_sharded_weight(weight: Any) -> bool:
    """Tell whether `weight` is sharded over the processes (a DTensor of FSDP 2, a parameter of ZeRO-3)."""
    return hasattr(weight, "full_tensor") or hasattr(weight, "ds_id")


def loads_on_main() -> bool:
    """Tell whether only the main process reads the weights: FSDP's `cpu_ram_efficient_loading`."""
    return all(map(parse_flag_from_env, ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")))


def check_launch() -> None:
    """Raise [`~hf_ftedit.EditError`] where `accelerate launch` is to shard weights as it cannot here."""
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return
    # FSDP 1 flattens the weights of a layer into one, whose parts have no names that an adapter could be saved by.
    if os.environ.get("FSDP_VERSION", "2") != "2":
        raise EditError("FSDP 1 is not supported; set fsdp_version: 2, as in examples/accelerate/fsdp2.yaml")
    if process_state().distributed_type == DistributedType.MULTI_CPU:
        raise EditError(
            "accelerate has FSDP on accelerators only, and would leave the weights whole on the CPU; launch with "
            "examples/accelerate/cpu_2_processes.yaml"
        )


class Processes:
    """The processes that run `model`, each on its share of the items; work without a model is shared evenly."""

    def __init__(self, model: Any = None) -> None:
        state = process_state()
        self.is_main, self.rank = state.is_main_process, state.process_index
        # `disable` of a `tqdm` bar: the main process shows it on a terminal, the others never.
        self.hides_bar = None if self.is_main else True
        has_others = model is not None and state.num_processes > 1
        # Where weights are sharded, a forward pass fetches each layer from all processes, so passes must be in step:
        # each runs everything. Sharing them out too would need an all-reduce before each pass, and empty passes of the
        # processes that are done first, for an evaluation that takes little beside the training.
        is_spread = has_others and is_sharded(model)
        self.count: int = 1 if is_spread else state.num_processes
        self._main_alone = has_others and not is_spread and loads_on_main()  # until FSDP shards the weights

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Select this process's part of `items`, which must be in the same order in every process."""
        if self._main_alone:
            return list(items) if self.is_main else []
        # Strided, not in blocks: items mostly come sorted by length, and the shares so take about as long.
        return list(items[self.rank % self.count :: self.count])

    def each_once(
        self,
        items: Sequence[Item],
        run: Callable[[list[Item]], Sequence[Value]],
        key: Callable[[Item], Any] = lambda item: 0,
    ) -> list[Value]:
        """
        Run each item in one process, and return the results of all in every process; `run` takes a share of the items.

        The items and their order must be the same in all; with `key`, shares are of items sorted by it, so that each
        has some of every size. An `EditError` or `OSError` of one process is raised in all.
        """
        positions = self.share(sorted(range(len(items)), key=lambda place: key(items[place])))
        with self.failing_together():
            values = list(run([items[position] for position in positions])) if positions else []
        pairs = list(zip(positions, values, strict=True))
        result_at = dict(gather_object(pairs) if self.count > 1 else pairs)
        return [result_at[position] for position in range(len(items))]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Re-raise an `EditError` or `OSError` of any process in all of them, so that none hangs in a collective."""
        error: EditError | OSError | None = None
        try:
            yield
        except (EditError, OSError) as raised:
            error = raised
        # Any other error ends its process, and then `accelerate launch` ends the others.
        message = error and str(error)
        messages = gather_object([message]) if self.count > 1 else []
        if error is not None:
            raise error
        if others := [text for text in messages if text]:
            raise EditError(others[0])


def in_turns(make: Callable[[], Value]) -> Value:
    """Call `make` in the main process first, then in the first one of each other machine, then in the rest."""
    # The files of a cache are so written once, whether or not the machines share it, and then read by all.
    state = process_state()
    failure: EditError | OSError | None = None
    with state.main_process_first(), state.local_main_process_first():
        # Raised after the turns: an error that left them would skip the barrier that the others wait at.
        try:
            made = make()
        except (EditError, OSError) as error:
            failure = error
    with Processes().failing_together():
        if failure:
            raise failure
    return made
