"""Prompts and targets to log-likelihoods: what prompts share is read once, and logits only where a target is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_ftedit.models.batching import in_batches
from hf_ftedit.models.collator import CompletionOnlyCollator
from hf_ftedit.models.distributed import is_sharded
from hf_ftedit.models.inference import inference
from hf_ftedit.models.logits import learns_prompts, logits_at, target_logits
from hf_ftedit.models.prefix_tree import Read, TokenTree, pack
from hf_ftedit.models.tokenization import EncodedPair, context_length, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PairScores(NamedTuple):
    """
    What a model makes of some (prompt, target) pairs; arrays of shape `(pairs,)`.

    Args:
        logprob (`np.ndarray`):
            Mean log-probability per target token, natural logarithm, float64.
        match (`np.ndarray`):
            Whether every target token is the most likely one, given the prompt and the target tokens before it.
        token_accuracy (`np.ndarray`):
            Share of the target tokens that are the most likely ones.
    """

    logprob: np.ndarray
    match: np.ndarray
    token_accuracy: np.ndarray


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    chat_template: bool = False,
    tokens_per_batch: int = 2048,
    names: Sequence[str] | None = None,
    desc: str = "Evaluating",
    bar: Any = None,
    on_scored: Callable[[Sequence[int], PairScores], None] | None = None,
) -> PairScores:
    """
    Log-likelihood and teacher-forced matches of targets after prompts.

    A prompt is read once for all of its targets, and so is whatever several prompts begin with: they are packed into
    trees (see [`~hf_ftedit.models.prefix_tree.pack`]) whose tokens see only those before them in their own prompt.
    A model that cannot read trees (recurrent, ALiBi, flash attention) gets each prompt with each target, in batches
    of similar length. A batch that does not fit into memory is tried again with half as many tokens.

    Args:
        model (`PreTrainedModel`):
            Causal language model, with or without adapters; its mode (train or eval) is restored afterwards.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer; either padding side.
        prompts (`Sequence[str]`):
            Prompts without trailing space.
        targets (`Sequence[str]`):
            Targets without leading space. Pairs should be distinct: each one is scored.
        chat_template (`bool`, *optional*, defaults to `False`):
            Score the target as the assistant's answer to the prompt.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch.
        names (`Sequence[str]`, *optional*):
            What to call each pair in an error.
        desc (`str`, *optional*, defaults to `"Evaluating"`):
            Label of the progress bar.
        bar (`tqdm`, *optional*):
            A progress bar to go on with, instead of one of its own.
        on_scored (`Callable`, *optional*):
            Told the indices of the pairs of each batch that was scored, and the scores as far as they are known.

    Raises:
        [`~hf_ftedit.EditError`]: a pair does not fit into the model's context, or not even one into memory.
    """
    pairs = encode_pairs(
        tokenizer,
        prompts,
        [f" {target}" for target in targets],
        chat_template=chat_template,
        max_length=context_length(model.config),
        names=names,
    )
    scores = PairScores(np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs)))
    own = tqdm(total=len(pairs), desc=desc, unit="pair", leave=False, disable=None if bar is None else True)

    def done(batch: JudgedTokens) -> None:
        indices = batch.into(scores)
        (own if bar is None else bar).update(len(indices))
        if on_scored is not None:
            on_scored(indices, scores)

    with own, inference(model):
        trees = pack(pairs)
        if trees and _reads_trees(model, trees, max(len(pair.input_ids) for pair in pairs)):
            sizes = [len(tree.tokens) for tree in trees]
            in_batches(sizes, tokens_per_batch, lambda batch: done(_judged_trees(model, [trees[i] for i in batch])))
        else:
            sizes = [len(pair.input_ids) for pair in pairs]
            pad = CompletionOnlyCollator.from_tokenizer(tokenizer)
            in_batches(sizes, tokens_per_batch, lambda batch: done(judged_rows(model, pad, pairs, batch)))
    return scores


class JudgedTokens(NamedTuple):
    """Target tokens of some pairs: the pair, the log-probability and the hit of each, arrays of shape `(tokens,)`."""

    pair: np.ndarray
    logprob: np.ndarray
    hit: np.ndarray

    def into(self, scores: PairScores) -> list[int]:
        """Write the pairs' scores into `scores`; the indices of those pairs."""
        indices, place, tokens = np.unique(self.pair, return_inverse=True, return_counts=True)
        scores.logprob[indices] = np.bincount(place, weights=self.logprob) / tokens
        scores.token_accuracy[indices] = np.bincount(place, weights=self.hit) / tokens
        scores.match[indices] = scores.token_accuracy[indices] == 1.0
        return indices.tolist()


def _judged_trees(model: Any, trees: Sequence[TokenTree]) -> JudgedTokens:
    """Each target token of some trees."""
    logits, owner = _tree_logits(model, trees)
    return _judged(logits, owner, [read for tree in trees for read in tree.reads])


def _tree_logits(model: Any, trees: Sequence[TokenTree]) -> tuple[torch.Tensor, np.ndarray]:
    """The logits that the trees read, shape `(places, vocabulary)`, and the place of each read among them."""
    size = max(len(tree.tokens) for tree in trees)
    tokens, positions = (
        torch.tensor([part + [0] * (size - len(part)) for part in parts], device=model.device)
        for parts in ([tree.tokens for tree in trees], [tree.positions for tree in trees])
    )
    visible = torch.from_numpy(np.stack([tree.visible(size) for tree in trees])).to(model.device)
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=model.device)
    mask = mask.masked_fill_(~visible, torch.finfo(model.dtype).min)[:, None]
    nodes = [(row, read.node) for row, tree in enumerate(trees) for read in tree.reads]
    places, owner = np.unique(nodes, axis=0, return_inverse=True)
    rows, columns = torch.from_numpy(places).to(model.device).unbind(1)
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, "use_cache": False}
    return logits_at(model, rows, columns, **inputs), owner.ravel()


def judged_rows(
    model: Any, pad: CompletionOnlyCollator, pairs: Sequence[EncodedPair], batch: Sequence[int]
) -> JudgedTokens:
    """Each target token of some pairs, each of which is a padded row."""
    inputs = pad([{"input_ids": pairs[i].input_ids, "labels": pairs[i].labels} for i in batch])
    found = target_logits(model, {name: tensor.to(model.device) for name, tensor in inputs.items()})
    reads = [Read(0, token, batch[row]) for row, token in zip(found.rows.tolist(), found.labels.tolist(), strict=True)]
    return _judged(found.logits, np.arange(len(reads)), reads)


def _judged(logits: torch.Tensor, owner: np.ndarray, reads: Sequence[Read]) -> JudgedTokens:
    """Log-probability of each read's token after its row of `logits`, shape `(rows, vocabulary)`, and its hit."""
    rows = torch.from_numpy(owner).to(logits.device)
    tokens = torch.tensor([read.token for read in reads], device=logits.device)
    # In parts: float32 copies of all logits of a batch would be what takes the most memory.
    normalizer = torch.cat([part.float().logsumexp(dim=-1) for part in logits.split(256)])
    logprob = logits[rows, tokens].double() - normalizer[rows].double()
    hit = logits.argmax(dim=-1)[rows] == tokens
    return JudgedTokens(np.array([read.pair for read in reads]), logprob.cpu().numpy(), hit.cpu().numpy())


def _reads_trees(model: Any, trees: Sequence[TokenTree], longest: int) -> bool:
    """
    Whether `model` makes the same of two sequences in one tree as of each alone: it is asked, at the size of `trees`.

    Recurrent models and those that know positions by the place in memory (ALiBi) do not, nor do kernels that take no
    mask, nor windows that are shorter than the longest prompt or, where they count places in memory, than the tree.
    """
    config = model.config.get_text_config()
    largest = len(trees[0].tokens)
    needed = {"sliding_window": longest, "attention_chunk_size": longest, "window_size": largest}
    windows = {name: getattr(config, name, None) for name in needed}
    if config._attn_implementation not in ("sdpa", "eager") or model.get_output_embeddings() is None:
        return False
    if is_sharded(model):  # a test that only one process fails would leave the others waiting for it
        return False
    if learns_prompts(model) or any(isinstance(w, int) and 0 < w < needed[name] for name, w in windows.items()):
        return False
    try:
        [tree] = pack(test := _branches(longest, largest, config.vocab_size), 4 * (longest + largest))
        found = _tree_logits(model, [tree])[0]
        alone = torch.tensor([pair.input_ids[:-1] for pair in test])
        expected = model(input_ids=alone.to(model.device), use_cache=False).logits[:, -1].float()
    except (ValueError, TypeError, IndexError, RuntimeError, AssertionError):
        return False
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 0.05
    return bool((found.float() - expected).norm() <= tolerance * (expected - expected.mean()).norm())


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
