"""A test by experiment of whether a model reads token trees, run once per model."""

import logging
import random
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate.utils.memory import should_reduce_batch_size

from hf_ftedit.models.batching import inference
from hf_ftedit.models.distributed import is_sharded
from hf_ftedit.models.logits import learns_prompts, row_logits, tree_logits
from hf_ftedit.models.prefix_tree import token_trees
from hf_ftedit.models.tokenization import EncodedPair

logger = logging.getLogger(__name__)


# By model, and by what may change the answer for one: `set_attn_implementation`, `to`, `disable_adapter`. The longest
# sequence and the largest tree that were tried, `None` of a model that does not read trees.
_outcomes: WeakKeyDictionary[Any, dict[Any, tuple[int, int] | None]] = WeakKeyDictionary()


def reads_trees(model: Any, longest: int, largest: int) -> bool:
    """Tell whether `model` makes the same of sequences in one tree as of each alone."""
    # Not so recurrent models, those that take positions from the place in memory (ALiBi), kernels without a mask, and
    # windows shorter than the `longest` sequence or, where they count places in memory, than the `largest` tree.
    if _is_excluded(model, longest, largest):
        return False
    # Tested rather than listed by architecture: such a list would be wrong for the next one, silently.
    is_disabled = any(getattr(module, "disable_adapters", None) is True for module in model.modules())
    state = (model.config.get_text_config()._attn_implementation, model.dtype, model.device, is_disabled)
    outcomes = _outcomes.setdefault(model, {})
    last = outcomes.get(state, (0, 0))
    if last is None or (longest <= last[0] and largest <= last[1]):
        return last is not None
    tried = max(longest, last[0]), max(largest, last[1])
    try:
        with inference(model):  # dropout would make two runs of anything differ
            reads = _agrees(model, *tried)
    except (ValueError, TypeError, IndexError, RuntimeError, AssertionError) as error:  # models refuse in many ways
        if isinstance(error, RuntimeError) and should_reduce_batch_size(error):
            logger.warning("out of memory while token trees were tried: each pair is run in a row of its own")
            return False  # this time; with more memory it may do
        logger.debug("the test of token trees failed", exc_info=True)
        reads = False
    outcomes[state] = tried if reads else None
    if not reads:  # most do, and nobody needs a line about it
        logger.info("%s does not read token trees", type(model).__name__)
    return reads


def _is_excluded(model: Any, longest: int, largest: int) -> bool:
    """Tell whether trees are out of the question, by the configuration alone."""
    config = model.config.get_text_config()
    needed = {"sliding_window": longest, "attention_chunk_size": longest, "window_size": largest}
    windows = {name: getattr(config, name, None) for name in needed}
    return (
        config._attn_implementation not in ("sdpa", "eager")
        or model.get_output_embeddings() is None
        or is_sharded(model)  # a test that only one process fails would leave the others waiting for it
        or learns_prompts(model)
        or any(isinstance(window, int) and 0 < window < needed[name] for name, window in windows.items())
    )


def _agrees(model: Any, longest: int, largest: int) -> bool:
    """Compare the logits after random sequences in one tree with those of the same sequences as rows."""
    pairs = _branches(longest, largest, model.config.get_text_config().vocab_size)
    [tree] = token_trees(pairs, 4 * (longest + largest))
    # Beside what they begin with, in the middle and farthest from it: others differ in their places alone.
    few = [0, len(pairs) // 2, len(pairs) - 1]
    logits = tree_logits(model, [tree])[0][few].float()
    expected = row_logits(model, [pairs[place] for place in few]).logits.float()
    # A model that sees other tokens than it should is off by about 1. In half precision rounding alone makes 0.01.
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 0.05
    return bool((logits - expected).norm() <= tolerance * (expected - expected.mean()).norm())


def _branches(length: int, size: int, vocabulary: int) -> list[EncodedPair]:
    """Pairs of `length` tokens that begin alike, together a tree of at least `size` tokens; in its order."""
    rng = random.Random(0)
    half = max(1, length // 2)
    count = max(2, -(-size // half))
    front = rng.choices(range(vocabulary), k=half)
    seconds = sorted(rng.sample(range(vocabulary), min(count, vocabulary)))
    rest = max(1, length - half - 1)
    rows = [[*front, second, *rng.choices(range(vocabulary), k=rest)] for second in seconds]
    return [EncodedPair(row, len(row) - 1) for row in rows]
