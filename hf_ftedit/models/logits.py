"""Forward passes that compute logits at the target positions only."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hf_ftedit.models.batching import padded
from hf_ftedit.models.kernels import added_to_scores, fast_attention
from hf_ftedit.models.loading import base_model
from hf_ftedit.models.prefix_tree import TokenTree, token_trees
from hf_ftedit.models.tokenization import IGNORE_INDEX, EncodedPair


class TargetLogits(NamedTuple):
    """The model's predictions of the labelled tokens of a batch, row by row from left to right."""

    logits: torch.Tensor  # (targets, vocabulary), in the model's precision
    labels: torch.Tensor  # (targets,): the token at that place
    rows: torch.Tensor  # (targets,): its row of the batch


def target_logits(model: torch.nn.Module, inputs: dict[str, Any]) -> TargetLogits:
    """
    Run `model` on a batch `(batch, length)` and return the logits from which the labelled tokens are predicted.

    Where the batch holds the [`tree_inputs`] of its rows under `trees`, those are run instead.
    """
    # The model may be wrapped (DDP, `torch.compile`, PEFT): its own head, scaling and soft-capping are applied.
    targets = inputs["labels"][:, 1:]
    is_target = targets != IGNORE_INDEX
    if "trees" in inputs:
        return TargetLogits(_run_trees(model, inputs["trees"]), targets[is_target], is_target.nonzero()[:, 0])
    columns = is_target.any(dim=0).nonzero().squeeze(1)
    inputs = {name: value for name, value in inputs.items() if name != "labels"}
    # Columns of the batch rather than single positions, as `logits_to_keep` takes no others; batches sorted by length
    # have few. TRL's fused head keeps single positions on Triton devices, but scores every position elsewhere.
    core: Any = type(_core(model))
    if "logits_to_keep" in inspect.signature(core.forward).parameters and not learns_prompts(model):
        logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    else:  # virtual tokens of a learned prompt stand before the rows' own places
        logits = model(**inputs, use_cache=False).logits[:, -targets.shape[1] - 1 :][:, columns]
    is_target, targets = is_target[:, columns], targets[:, columns]
    return TargetLogits(logits[is_target], targets[is_target], is_target.nonzero()[:, 0])


def row_logits(model: Any, pairs: Sequence[EncodedPair]) -> TargetLogits:
    """The [`target_logits`] of some pairs, each of which is a padded row."""
    ids, labels = [pair.input_ids for pair in pairs], [pair.labels for pair in pairs]
    mask = [[1] * len(row) for row in ids]
    inputs = {"input_ids": padded(ids, 0), "attention_mask": padded(mask, 0), "labels": padded(labels, IGNORE_INDEX)}
    return target_logits(model, {name: tensor.to(model.device) for name, tensor in inputs.items()})


def tree_logits(model: Any, trees: Sequence[TokenTree]) -> tuple[torch.Tensor, np.ndarray]:
    """Logits `(positions, vocabulary)` that predict the targets of token trees, and each target's row of them."""
    nodes = [(row, target.node) for row, tree in enumerate(trees) for target in tree.targets]
    # Targets after the same token share a row.
    places, owner = np.unique(nodes, axis=0, return_inverse=True)
    return _run_trees(model, _inputs_of(trees, places)), owner.ravel()


def tree_inputs(pairs: Sequence[EncodedPair], width: int) -> dict[str, torch.Tensor]:
    """Tensors of the token trees of some pairs, for [`target_logits`]: its logits come in the order of the labels."""
    trees = token_trees(pairs, width)
    targets = [(target.pair, row, target.node) for row, tree in enumerate(trees) for target in tree.targets]
    # A pair's own targets stand side by side, from left to right: the sort is stable.
    places = [place for _, *place in sorted(targets, key=lambda target: target[0])]
    return _inputs_of(trees, np.array(places))


def _inputs_of(trees: Sequence[TokenTree], places: np.ndarray) -> dict[str, torch.Tensor]:
    """Tensors of token trees and of the `places` (row, column) whose logits are wanted."""
    size = max(len(tree.tokens) for tree in trees)
    ids, positions = padded([tree.tokens for tree in trees], 0), padded([tree.positions for tree in trees], 0)
    visible = torch.from_numpy(np.stack([tree.attention_mask(size) for tree in trees]))
    return {"input_ids": ids, "position_ids": positions, "visible": visible, "places": torch.from_numpy(places)}


def _run_trees(model: Any, trees: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits `(places, vocabulary)` of what [`_inputs_of`] made."""
    core = _core(model)
    trees = {name: tensor.to(core.device) for name, tensor in trees.items()}
    # Added to the attention's scores: of the masks with four dimensions, the one that every implementation takes.
    mask = added_to_scores(trees["visible"], core.dtype)[:, None]
    inputs = {"input_ids": trees["input_ids"], "position_ids": trees["position_ids"], "attention_mask": mask}
    rows, columns = trees["places"].unbind(1)

    # The output embeddings must be the last layer that is applied. A hook, as `logits_to_keep` takes whole columns
    # only: in token trees nearly every column has a target somewhere.
    def keep(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = args
        return hidden[rows.to(hidden.device), columns.to(hidden.device)][None], *others

    hook = core.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        with fast_attention(mask.shape[-1]):
            return model(**inputs, use_cache=False).logits[0]
    finally:
        hook.remove()


def learns_prompts(model: Any) -> bool:
    """Tell whether an adapter puts virtual tokens before each row (prompt tuning and its kin)."""
    return getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)


def token_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of each label in float32, shape `(targets,)`, natural logarithm."""
    # In bfloat16 a log-probability has two or three digits, too few for the gradient of an almost learned token.
    return -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def _core(model: Any) -> Any:
    """The causal language model inside DDP, torch.compile and PEFT wrappers."""
    for name in ("module", "_orig_mod"):
        model = getattr(model, name, model)
    return base_model(model)
