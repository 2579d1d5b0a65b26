"""Batches that fit into memory, halved where they do not; and a collector that leaves old objects alone."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size

from hf_ftedit.errors import EditError

logger = logging.getLogger(__name__)


def in_batches(lengths: Sequence[int], tokens_per_batch: int, run: Callable[[list[int]], None]) -> None:
    """
    Call `run` with the indices of `lengths`, in batches of at most so many padded tokens, the longest first.

    A batch that does not fit into memory is run again as smaller ones, with half as many tokens; those that were run
    are not.

    Args:
        lengths (`Sequence[int]`):
            Tokens of each item.
        tokens_per_batch (`int`):
            Tokens of a batch, padding included; a batch has at least one item.
        run (`Callable[[list[int]], None]`):
            What to do with a batch.

    Raises:
        [`~hf_ftedit.EditError`]: not even a single item fits into memory.
    """
    waiting = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    begin, size, budget = 0, 0, tokens_per_batch

    def work(tokens: int) -> None:
        nonlocal begin, size
        while begin < len(waiting):
            size = max(1, tokens // lengths[waiting[begin]])
            run(waiting[begin : begin + size])
            begin += size

    def halved() -> int:
        nonlocal budget
        budget = min(budget, size * lengths[waiting[begin]]) // 2
        if size == 1 or not budget:
            raise EditError(
                "the memory does not suffice for a single prompt; load the model in 4 bits (--load_in_4bit) "
                "or in bfloat16 (--dtype bfloat16), or use a machine with more memory"
            )
        logger.warning("out of memory: going on with %d tokens a batch", budget)
        return budget

    try:
        return work(budget)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # Not from the start: it collects garbage first, which takes longer than many an evaluation. And not inside
    # `except`: the error holds the frames, and so the tensors, of the batch that failed.
    find_executable_batch_size(work, starting_batch_size=halved(), reduce_batch_size_fn=halved)()


@contextmanager
def old_objects_apart() -> Iterator[None]:
    """
    Context in which the garbage collector looks at new objects only.

    Making many small ones has it walk through all there are, again and again: the model's modules and the libraries
    are a million, and that took an eighth of an evaluation.
    """
    ours = not gc.get_freeze_count()
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
