"""The unedited model's distributions at target positions: what an edit should leave as it is."""

import atexit
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from datasets.fingerprint import Hasher, generate_random_fingerprint

from hf_ftedit.errors import EditError
from hf_ftedit.files import cached_map
from hf_ftedit.models.distributed import Processes, from_main, in_turns, loads_on_main
from hf_ftedit.models.likelihood import Predictions, run_pairs
from hf_ftedit.models.loading import unedited, weights_fingerprint
from hf_ftedit.models.tokenization import EncodedPair, pair_of

STAYS = ("locality", "contrast")  # kinds of rows whose answers are the unedited model's own
# Columns of rows, with their types: a `Reference`, each array flat.
REFERENCE_COLUMNS = {"ref_tokens": "int32", "ref_logprobs": "float16", "ref_rest": "float16"}
N_TOKENS = 64  # the likeliest tokens that are kept of a distribution
_LEAST = np.finfo(np.float16).min  # log-probability of the impossible: with -inf, 0 * -inf would be NaN


class Reference(NamedTuple):
    """A model's predictions at the target positions of a pair: its likeliest tokens, and all others together."""

    tokens: np.ndarray  # int32 (targets, k)
    logprobs: np.ndarray  # float16 (targets, k), natural logarithm
    rest: np.ndarray  # float16 (targets,): log-probability of all other tokens


def reference_distributions(
    model: Any, pairs: Sequence[EncodedPair], *, k: int = N_TOKENS, tokens_per_batch: int = 2048
) -> list[Reference]:
    """
    The `k` likeliest tokens of `model` at each target position of each pair, and the log-probability of all others.

    Those of the unedited model are what the edited one is compared with; of a model with an adapter they are made
    within [`~hf_ftedit.models.unedited`]. A vocabulary of fewer than `k` tokens is kept whole.
    """
    references: list[Any] = [None] * len(pairs)

    def add(predicted: Predictions) -> None:
        tokens, logprobs, rest = _summaries(predicted.logits, k)
        for index, rows in predicted.by_pair():  # all targets of a pair are in one batch
            references[index] = Reference(tokens[rows], logprobs[rows], rest[rows])

    run_pairs(model, pairs, tokens_per_batch, add)
    return references


def with_references(
    rows: datasets.Dataset, model: Any, *, k: int = N_TOKENS, tokens_per_batch: int = 2048
) -> datasets.Dataset:
    """
    Add the columns `ref_tokens`, `ref_logprobs` and `ref_rest` to tokenized rows, from the unedited model.

    They hold the [`Reference`] of a row of one of the kinds [`STAYS`], its arrays made flat, and empty lists for
    other rows. The main process computes them into the `datasets` cache; every process must call this.
    """
    # By rows and model, which cannot be hashed. Quantized weights have no fingerprint: theirs are made anew.
    weights = weights_fingerprint(model, whole=True) if Processes().is_main else None
    known = weights or generate_random_fingerprint()
    fingerprint = from_main(Hasher.hash([rows._fingerprint, known, str(model.dtype), model.device.type, k]))
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "hf_ftedit" / f"references-{fingerprint}.arrow"
    if Processes().is_main and weights is None:
        # No other run can use it. Not before the end of this one, where workers may open it by its path.
        atexit.register(cache.unlink, missing_ok=True)

    def referred(batch: Any) -> dict[str, list[np.ndarray]]:
        if loads_on_main() and not Processes().is_main:
            raise EditError(
                f"{cache} is not there, and only the main process has the weights to make it: give all machines one "
                "HF_DATASETS_CACHE, or use --locality_loss nll"
            )
        places = [place for place, kind in enumerate(batch["kind"]) if kind in STAYS]
        pairs = [pair_of(batch["input_ids"][place], batch["labels"][place]) for place in places]
        made = reference_distributions(model, pairs, k=k, tokens_per_batch=tokens_per_batch)
        reference_at = dict(zip(places, made, strict=True))
        nothing = [np.empty(0, dtype) for dtype in REFERENCE_COLUMNS.values()]
        parts = [reference_at.get(place, nothing) for place in range(len(batch["kind"]))]
        return {name: [part[number].ravel() for part in parts] for number, name in enumerate(REFERENCE_COLUMNS)}

    features = {name: datasets.Sequence(datasets.Value(dtype)) for name, dtype in REFERENCE_COLUMNS.items()}
    settings = {"features": datasets.Features({**rows.features, **features}), "new_fingerprint": fingerprint}
    # As many rows as an edit has: they begin alike. Not all of them, so that the progress bar moves.
    settings |= {"batched": True, "batch_size": 256, "cache_file_name": str(cache), "desc": "What should stay"}
    with unedited(model):
        return in_turns(lambda: cached_map(rows, referred, cache.parent, **settings))


def pair_divergences(
    model: Any, referred: Sequence[tuple[EncodedPair, Reference]], *, tokens_per_batch: int = 2048
) -> list[np.ndarray]:
    """The [`divergences`] of `model` from the references of pairs, for each pair an array of shape `(targets,)`."""
    values: list[Any] = [None] * len(referred)

    def add(predicted: Predictions) -> None:
        device = predicted.logits.device
        # Pair by pair: float32 copies of all logits would be what takes the most memory.
        for index, rows in predicted.by_pair():
            reference = (torch.from_numpy(part).to(device) for part in referred[index][1])
            values[index] = divergences(predicted.logits[torch.from_numpy(rows).to(device)], *reference).cpu().numpy()

    run_pairs(model, [pair for pair, _ in referred], tokens_per_batch, add)
    return values


def _summaries(logits: torch.Tensor, k: int) -> list[np.ndarray]:
    """Arrays of the [`Reference`] of each row of `logits`."""
    parts: list[tuple[torch.Tensor, ...]] = []
    for part in logits.split(256):  # float32 copies of all would be what takes the most memory
        logprobs = part.float().log_softmax(dim=-1)
        top, tokens = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
        rest = logprobs.scatter_(1, tokens, -torch.inf).logsumexp(dim=-1)
        parts.append((tokens.int(), top.clamp(min=_LEAST).half(), rest.clamp(min=_LEAST).half()))
    return [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]


def divergences(
    logits: torch.Tensor, tokens: torch.Tensor, logprobs: torch.Tensor, rest: torch.Tensor
) -> torch.Tensor:
    """
    KL(reference || model) at each row of `logits` `(targets, vocabulary)`, in nats, float32 `(targets,)`.

    The other arguments are a [`Reference`] as tensors; all tokens that it does not name count as one.
    """
    top = logits.gather(1, tokens.long()).float()
    # Not 1 - the others' probability, which float32 loses where the model is sure.
    others = logits.float().scatter(1, tokens.long(), torch.finfo(torch.float32).min / 2).logsumexp(dim=-1)
    model = torch.cat([top, others[:, None]], dim=-1).log_softmax(dim=-1)
    # float16 rounds: normalized again, the divergence of equal distributions is 0 and no other is less.
    reference = torch.cat([logprobs, rest[:, None]], dim=-1).float().log_softmax(dim=-1)
    return (reference.exp() * (reference - model)).sum(dim=-1)
