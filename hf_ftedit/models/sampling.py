"""Text sampled from a model: prefixes from the empty context, and continuations that depend on their seed alone."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from hf_ftedit.errors import EditError
from hf_ftedit.models.decoding import OnDone, generated_tokens, room, texts_in_batches
from hf_ftedit.models.distributed import Processes
from hf_ftedit.models.tokenization import encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXT_TOKENS = 100


def sample_prefixes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    count: int,
    top_k: int = 5,
    seed: int = 0,
    accept: Callable[[str], bool] = bool,
    batch_size: int = 128,
) -> list[str]:
    """
    Sample `count` texts of `length` tokens from the empty context, cleaned to one line without special tokens.

    Under `accelerate launch` every process must call this: the batches are shared out, and all return all texts, which
    are the same on any number of processes.

    Args:
        model (`PreTrainedModel`):
            The unedited model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer; the context is its beginning-of-sequence token, or its end-of-sequence token.
        length (`int`):
            Tokens in each text.
        count (`int`):
            How many texts.
        top_k (`int`, *optional*, defaults to `5`):
            Sample among this many most likely tokens.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampling; the global random state is left as it was.
        accept (`Callable[[str], bool]`, *optional*):
            Tells which texts will do; others are drawn again. By default those that are not empty.
        batch_size (`int`, *optional*, defaults to `128`):
            Texts sampled at once.

    Raises:
        [`EditError`]: the tokenizer has no token to begin with, or the model samples too few usable texts.
    """
    start = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None)
    if start is None:
        raise EditError("the tokenizer has neither a beginning- nor an end-of-sequence token to sample from; set one")
    how: dict[str, Any] = {"length": length, "top_k": top_k, "accept": accept}
    sizes = [min(batch_size, count - begin) for begin in range(0, count, batch_size)]
    processes = Processes(model)
    what, hides = f"Sampling prefixes of {length} tokens", processes.hides_bar
    with tqdm(total=len(processes.share(sizes)), desc=what, unit="batch", leave=False, disable=hides) as bar:

        def sample(mine: list[int]) -> Iterator[list[str]]:
            for number in mine:
                # Of its own seed, so that it does not matter who samples it; the first one's is the seed itself.
                own = random.Random(f"{seed}/{number}").getrandbits(63) if number else seed
                yield _sampled_batch(model, tokenizer, start, sizes[number], seed=own, **how)
                bar.update()

        batches = processes.each_once(range(len(sizes)), lambda mine: list(sample(mine)))
    return [text for batch in batches for text in batch]


def sample_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    length: int = TEXT_TOKENS,
    top_k: int = 5,
    tokens_per_batch: int = 2048,
    desc: str = "Writing",
    on_done: OnDone | None = None,
) -> list[str]:
    """
    Texts that go on from `prompts`, sampled among the `top_k` likeliest tokens; the prompts are part of them.

    A text depends on its own seed and prompt alone, not on what else is in its batch: the largest of the top
    log-probabilities with Gumbel noise added is a sample of them (Maddison et al. 2014, arXiv 1411.0030).

    Args:
        model (`PreTrainedModel`):
            Model to write.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        prompts (`Sequence[str]`):
            How the texts begin.
        seeds (`Sequence[int]`):
            One for each text.
        length (`int`, *optional*, defaults to `100`):
            Tokens of a text with those of its prompt, as in ROME's evaluation; an end of sequence is not sampled.
        top_k (`int`, *optional*, defaults to `5`):
            Sample among this many most likely tokens.
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch, padding included; halved where memory does not suffice.
        desc (`str`, *optional*, defaults to `"Writing"`):
            Label of the progress bar.
        on_done (`Callable`, *optional*):
            Told the indices of the prompts of each batch, and their texts.

    Raises:
        [`EditError`]: a prompt leaves no room in the model's context, or not even one fits into memory.
    """
    encoded = encode_prompts(tokenizer, prompts)
    lengths = [min(max(1, length - len(ids)), room(model, ids)) for ids in encoded]

    def write(batch: Sequence[int]) -> list[str]:
        ids, wanted = [encoded[index] for index in batch], [lengths[index] for index in batch]
        noise = _gumbel([seeds[index] for index in batch], (max(wanted), top_k)).to(model.device)
        sample = LogitsProcessorList([_TopKSample(noise, max(map(len, ids)))])
        settings = {"do_sample": False, "min_new_tokens": max(wanted), "logits_processor": sample}
        tokens = generated_tokens(model, tokenizer, ids, wanted, **settings)
        whole = [before + after for before, after in zip(ids, tokens, strict=True)]
        return tokenizer.batch_decode(whole, skip_special_tokens=True)

    return texts_in_batches(write, prompts, encoded, lengths, model, tokens_per_batch, desc, on_done)


def clean_text(text: str) -> str:
    """`text` on one line without control characters, doubled spaces, or sentence ends at its end."""
    text = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in text)
    return re.sub(r" +", " ", text.replace("\ufffd", "")).strip().rstrip(".!?,;: ")


def _sampled_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    start: int,
    count: int,
    *,
    length: int,
    top_k: int,
    seed: int,
    accept: Callable[[str], bool],
) -> list[str]:
    """`count` usable texts that begin with the token `start`."""
    settings = {"do_sample": True, "top_k": top_k, "top_p": 1.0, "temperature": 1.0, "min_new_tokens": length}
    texts: list[str] = []
    with _seeded(model, seed):
        for _ in range(22):  # refused samples are drawn again, but not for ever
            batch = [[start]] * (count - len(texts))
            tokens = generated_tokens(model, tokenizer, batch, [length] * len(batch), **settings)
            cleaned = map(clean_text, tokenizer.batch_decode(tokens, skip_special_tokens=True))
            texts += [text for text in cleaned if text and accept(text)]
            if len(texts) == count:
                return texts
    raise EditError(f"the model sampled only {len(texts)} usable prefixes of {count}; use paraphrase_strategy 'none'")


@contextmanager
def _seeded(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore its random states behind it."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _TopKSample(LogitsProcessor):
    """Leaves of each row the one token that `noise`, of shape `(rows, steps, k)`, samples among its `k` likeliest."""

    def __init__(self, noise: torch.Tensor, start: int) -> None:
        self.noise, self.start = noise, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        values, tokens = scores.topk(self.noise.shape[2], dim=-1)
        chosen = (values + self.noise[:, input_ids.shape[1] - self.start]).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.gather(1, chosen), 0.0)


def _gumbel(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard Gumbel noise of this shape for each seed, on the CPU so that every device draws the same."""
    uniform = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return -torch.log(-torch.log(torch.stack(uniform).clamp(min=1e-20, max=1 - 1e-7)))
