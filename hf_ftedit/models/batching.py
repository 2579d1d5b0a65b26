"""Running a model in batches: evaluation mode, padding, and batches that are halved where memory runs out."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from hf_ftedit.errors import EditError
from hf_ftedit.models.kernels import fast_kernels
from hf_ftedit.models.loading import turn
from hf_ftedit.options import check_value

logger = logging.getLogger(__name__)

MOST_LOGITS = 2**28  # of a batch, a gigabyte in float32: those of 262,144 words would take more than a small model


def padded(rows: Sequence[list[int]], value: int, *, side: str = "right") -> torch.Tensor:
    """Rows of integers as one tensor of shape `(rows, longest)`, filled up with `value` on one side."""
    # Not `tokenizer.pad`: it needs a padding token, which GPT-2 has none of, and pads on the tokenizer's own side.
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side
    )


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Run `model` without gradients and dropout, in one thread; its mode (train or eval) is restored afterwards."""
    with turn(model), torch.no_grad(), fast_kernels(model):
        # A loss of routers, which nobody reads here, wants a mask of all tokens, those in the cache too.
        config: Any = model.config.get_text_config() if hasattr(model, "config") else None
        was_training = model.training
        model.eval()
        if has_router_loss := getattr(config, "output_router_logits", False):
            config.output_router_logits = False
        try:
            yield
        finally:
            model.train(was_training)
            if has_router_loss:
                config.output_router_logits = True


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Freeze existing objects so that the garbage collector scans new ones only."""
    # Tokenizing makes many small objects, and the collector then walks through a model's modules and all libraries, a
    # million objects, again and again: an eighth of an evaluation.
    freezes = not gc.get_freeze_count()
    if freezes:
        gc.freeze()
    try:
        yield
    finally:
        if freezes:
            gc.unfreeze()


def in_batches(
    lengths: Sequence[int], tokens_per_batch: int, run: Callable[[list[int]], None], *, vocabulary: int | None = None
) -> None:
    """
    Call `run` with the indices of `lengths`, longest first, in batches of at most so many tokens with padding.

    Where logits of a `vocabulary` may be made of all of them, there are at most [`MOST_LOGITS`].
    """
    # A batch has at least one item. One that does not fit into memory is run again as smaller ones, with half as many
    # tokens; those that were run are not.
    order = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    begin, budget = 0, check_value("tokens_per_batch", tokens_per_batch, int)
    budget = min(budget, MOST_LOGITS // (vocabulary or 1))
    while begin < len(order):
        longest = lengths[order[begin]]
        size = max(1, budget // longest)
        try:
            run(order[begin : begin + size])
            begin += size
            continue
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        # Not inside `except`: the error holds the frames, and so the tensors, of the batch that failed.
        clear_device_cache(garbage_collection=True)
        budget = min(budget, size * longest) // 2
        if size == 1 or not budget:
            raise EditError(
                "the memory does not suffice for a single prompt; load the model in 4 bits (--load_in_4bit) "
                "or in bfloat16 (--dtype bfloat16), or use a machine with more memory"
            )
        logger.warning("out of memory: going on with %d tokens a batch", budget)
