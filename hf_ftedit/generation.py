"""Text from a model, in batches: samples from the empty context, and greedy answers to prompts."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from hf_ftedit.records import EditError
from hf_ftedit.tokenization import context_length, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ANSWER_TOKENS = 8


def sample_texts(
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
    settings = {"do_sample": True, "top_k": top_k, "top_p": 1.0, "temperature": 1.0}
    texts: list[str] = []
    bar = tqdm(total=count, desc=f"Sampling prefixes of {length} tokens", unit="text", leave=False, disable=None)
    with _seeded(model, seed), bar:
        for _ in range(20 + 2 * count // batch_size):  # refused samples are drawn again, but not for ever
            batch = [[start]] * min(batch_size, count - len(texts))
            found = _generate(model, tokenizer, batch, length, min_new_tokens=length, **settings)
            found = [text for text in map(clean_text, found) if text and accept(text)]
            texts += found
            bar.update(len(found))
            if len(texts) == count:
                return texts
    raise EditError(f"the model sampled only {len(texts)} usable prefixes of {count}; use paraphrase_strategy 'none'")


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = MAX_ANSWER_TOKENS,
    chat_template: bool = False,
    batch_size: int = 64,
    desc: str = "Answering",
) -> list[str]:
    """
    The model's own greedy answers to `prompts`, cut at the end of the first sentence or line.

    Args:
        model (`PreTrainedModel`):
            Model to ask.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        prompts (`Sequence[str]`):
            Prompts, answered in batches of similar length.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Most tokens of an answer.
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the tokenizer's chat template.
        batch_size (`int`, *optional*, defaults to `64`):
            Prompts answered at once.
        desc (`str`, *optional*, defaults to `"Answering"`):
            Label of the progress bar.

    Raises:
        [`EditError`]: a prompt leaves no room in the model's context.

    Returns:
        `list[str]`: answers in the order of the prompts, without surrounding space; empty for no answer.
    """
    encoded = encode_prompts(tokenizer, prompts, chat_template=chat_template)
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers = [""] * len(encoded)
    with tqdm(total=len(order), desc=desc, unit="prompt", leave=False, disable=None) as bar:
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            room = (context_length(model.config) or sys.maxsize) - len(encoded[batch[-1]])
            if room < 1:
                raise EditError(f"prompt {prompts[batch[-1]]!r} fills the model's context; give a shorter one")
            tokens = min(max_new_tokens, room)
            found = _generate(model, tokenizer, [encoded[i] for i in batch], tokens, do_sample=False)
            for index, text in zip(batch, found, strict=True):
                answers[index] = first_sentence(text)
            bar.update(len(batch))
    return answers


def clean_text(text: str) -> str:
    """`text` on one line without control characters, doubled spaces, or sentence ends at its end."""
    text = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in text)
    return re.sub(r" +", " ", text.replace("\ufffd", "")).strip().rstrip(".!?,;: ")


def first_sentence(text: str) -> str:
    """`text` up to its first line break or sentence end, without surrounding space."""
    return re.split(r"\n|[.!?](?=\s|$)", text.strip(), maxsplit=1)[0].strip()


@torch.no_grad()
def _generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    **settings: Any,
) -> list[str]:
    """Continuations of token lists as text; padded on the left, as generation needs it."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    length = max(map(len, prompts))
    input_ids = torch.tensor([[pad] * (length - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    was_training = model.training
    model.eval()
    output = model.generate(
        input_ids=input_ids, attention_mask=mask, max_new_tokens=max_new_tokens, pad_token_id=pad, **settings
    )
    model.train(was_training)
    return tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)


@contextmanager
def _seeded(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore its random states behind it."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
