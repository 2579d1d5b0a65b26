"""log p(target | prompt) in batches: shared prefixes are computed once, and logits only at target positions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.errors import EditError
from hf_ftedit.models.batching import gc_frozen, in_batches, inference
from hf_ftedit.models.loading import in_turn
from hf_ftedit.models.logits import row_logits, tree_logits
from hf_ftedit.models.prefix_tree import WIDTH, TokenTree, token_trees
from hf_ftedit.models.tokenization import EncodedPair, check_tokens, context_length, encode_pairs, vocabulary_size
from hf_ftedit.models.tree_support import reads_trees
from hf_ftedit.scripts import separated


class PairScores(NamedTuple):
    """
    A model's scores of (prompt, target) pairs; arrays of shape `(pairs,)`.

    Args:
        logprob (`np.ndarray`): Mean log-probability per target token, natural logarithm, float64.
        match (`np.ndarray`): True where every target token is the most likely one, given the prompt and the target
            tokens before it.
        token_accuracy (`np.ndarray`): Share of the target tokens that are the most likely ones.
    """

    logprob: np.ndarray
    match: np.ndarray
    token_accuracy: np.ndarray


@in_turn
@gc_frozen()
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
) -> PairScores:
    """
    Log-likelihood and teacher-forced matches of targets after prompts.

    A prompt is run once for all of its targets, and so is whatever several prompts begin with: they are merged into
    token trees, see [`~hf_ftedit.models.prefix_tree.token_trees`]. A model that cannot read trees (recurrent, ALiBi,
    flash attention) gets each prompt with each target, in batches of similar length, halved where memory runs out.

    Args:
        model (`PreTrainedModel`): Causal language model, with or without adapters; its mode (train or eval) is
            restored afterwards.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer; either padding side.
        prompts (`Sequence[str]`): Prompts without trailing space.
        targets (`Sequence[str]`): Targets; a space is put before them where the script has one. Pairs should be
            distinct: each is scored.
        chat_template (`bool`, *optional*, defaults to `False`): Score the target as the assistant's answer to the
            prompt.
        tokens_per_batch (`int`, *optional*, defaults to `2048`): Tokens of a batch.
        names (`Sequence[str]`, *optional*): What to call each pair in an error.
        desc (`str`, *optional*, defaults to `"Evaluating"`): Label of the progress bar.
        bar (`tqdm`, *optional*): A progress bar to continue, instead of one of its own.

    Raises:
        [`EditError`]: a pair does not fit into the model's context, or not even one into memory.
    """
    if isinstance(prompts, str) or isinstance(targets, str) or len(prompts) != len(targets):
        raise EditError("prompts and targets are lists, with a target for each prompt; give them so")
    completions = [separated(*parts) for parts in zip(prompts, targets, strict=True)]
    whole = map("".join, zip(prompts, completions, strict=True))
    named = zip(names or map(repr, prompts), whole, strict=True)
    check_tokens(tokenizer, model.config, named, chat_template=chat_template)
    settings: dict[str, Any] = {"chat_template": chat_template, "names": names}
    pairs = encode_pairs(tokenizer, prompts, completions, max_length=context_length(model.config), **settings)
    scores = PairScores(np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs)))
    own_bar = tqdm(total=len(pairs), desc=desc, unit="pair", leave=False, disable=None if bar is None else True)

    def add(predicted: Predictions) -> None:
        logprob, hit = token_scores(predicted)
        # All tokens of a pair are in one batch, so its means are final.
        indices, place, tokens = np.unique(predicted.pairs, return_inverse=True, return_counts=True)
        scores.logprob[indices] = np.bincount(place, weights=logprob) / tokens
        scores.token_accuracy[indices] = np.bincount(place, weights=hit) / tokens
        scores.match[indices] = scores.token_accuracy[indices] == 1.0
        (own_bar if bar is None else bar).update(len(indices))

    with own_bar:
        run_pairs(model, pairs, tokens_per_batch, add)
    return scores


class Predictions(NamedTuple):
    """What a batch predicts of the target tokens of some pairs, pair by pair from left to right."""

    logits: torch.Tensor  # (positions, vocabulary)
    position: np.ndarray  # (targets,): the row of `logits`; targets after the same tokens may share one
    tokens: Sequence[int]  # (targets,)
    pairs: Sequence[int]  # (targets,): index of the pair that the token is part of

    def by_pair(self) -> Iterator[tuple[int, np.ndarray]]:
        """The index of each pair with the rows of `logits` of its targets, which stand side by side."""
        first = np.flatnonzero(np.diff(self.pairs, prepend=-1)).tolist()
        for place, rows in zip(first, np.split(self.position, first[1:]), strict=True):
            yield self.pairs[place], rows


def run_pairs(
    model: Any,
    pairs: Sequence[EncodedPair],
    tokens_per_batch: int,
    use: Callable[[Predictions], None],
    *,
    in_trees: bool = True,
) -> None:
    """Call `use` with the predictions of each batch: of token trees where `model` reads them, else of padded rows."""
    # In trees of a third of the hidden size, attention to all of their tokens is about a twentieth of the work.
    width = max(WIDTH, getattr(model.config.get_text_config(), "hidden_size", 0) // 3)
    trees, lengths = token_trees(pairs, width) if in_trees else [], [len(pair.input_ids) for pair in pairs]
    are_read = trees and reads_trees(model, longest=max(lengths), largest=len(trees[0].tokens))

    def run(batch: list[int]) -> None:
        use(_run_trees(model, [trees[i] for i in batch]) if are_read else _run_rows(model, pairs, batch))

    sizes = [len(tree.tokens) for tree in trees] if are_read else lengths
    with inference(model):
        in_batches(sizes, tokens_per_batch, run, vocabulary=vocabulary_size(model.config))


def _run_trees(model: Any, trees: Sequence[TokenTree]) -> Predictions:
    logits, position = tree_logits(model, trees)
    targets = [target for tree in trees for target in tree.targets]
    return Predictions(logits, position, [target.token for target in targets], [target.pair for target in targets])


def _run_rows(model: Any, pairs: Sequence[EncodedPair], batch: Sequence[int]) -> Predictions:
    """Predictions of the pairs with the indices `batch`, each of which is a padded row."""
    targets = row_logits(model, [pairs[i] for i in batch])
    owners = [batch[row] for row in targets.rows.tolist()]
    return Predictions(targets.logits, np.arange(len(owners)), targets.labels.tolist(), owners)


def token_scores(predicted: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability `(targets,)` of each target token, and where it is the most likely one."""
    logits = predicted.logits
    rows = torch.from_numpy(predicted.position).to(logits.device)
    token = torch.tensor(predicted.tokens, device=logits.device)
    # In parts: float32 copies of all logits of a batch would be what takes the most memory.
    normalizer = torch.cat([part.float().logsumexp(dim=-1) for part in logits.split(256)])
    logprob = logits[rows, token].cpu().double() - normalizer[rows].cpu().double()  # Apple's GPUs have no float64
    hit = logits.argmax(dim=-1)[rows] == token
    return logprob.numpy(), hit.cpu().numpy()
