"""The one call of `model.generate` that measures: prompts of similar length in batches, without a model's habits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from tqdm.auto import tqdm

from hf_ftedit.errors import EditError
from hf_ftedit.models.batching import in_batches
from hf_ftedit.models.distributed import Processes
from hf_ftedit.models.inference import inference
from hf_ftedit.models.tokenization import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A chat model's habits, such as a penalty on repetition, are not what it knows.
NO_HABITS: dict[str, Any] = {
    **{"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0},
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
}

OnDone: TypeAlias = Callable[[Sequence[int], Sequence[str]], None]


def texts_in_batches(
    generate: Callable[[Sequence[int]], list[str]],
    prompts: Sequence[str],
    encoded: Sequence[list[int]],
    lengths: Sequence[int],
    model: Any,
    tokens_per_batch: int,
    desc: str,
    on_done: OnDone | None,
) -> list[str]:
    """
    What `generate` makes of each prompt, in batches of prompts of similar length.

    A batch whose longest prompt leaves too little room in the model's context is taken apart into single prompts.

    Args:
        generate (`Callable[[Sequence[int]], list[str]]`):
            Told the indices of the prompts of a batch, gives a text for each.
        prompts (`Sequence[str]`):
            Prompts, for errors.
        encoded (`Sequence[list[int]]`):
            Their tokens.
        lengths (`Sequence[int]`):
            For how many tokens each of them goes on.
        model (`PreTrainedModel`):
            The model that is asked.
        tokens_per_batch (`int`):
            Tokens of a batch, padding included; halved where memory does not suffice.
        desc (`str`):
            Label of the progress bar.
        on_done (`Callable`, *optional*):
            Told the indices of the prompts of each batch, and their texts.

    Raises:
        [`~hf_ftedit.EditError`]: a prompt leaves no room in the model's context, or not even one fits into
            memory.

    Returns:
        `list[str]`: texts in the order of the prompts.
    """
    for prompt, length in zip(prompts, lengths, strict=True):
        if length < 1:
            raise EditError(f"prompt {prompt!r} fills the model's context; give a shorter one")
    texts = [""] * len(prompts)
    with tqdm(total=len(prompts), desc=desc, unit="prompt", leave=False, disable=Processes().hides_bar) as bar:

        def run(batch: list[int]) -> None:
            longest = max(batch, key=lambda index: len(encoded[index]))
            fits = max(lengths[index] for index in batch) <= room(model, encoded[longest])
            for part in [batch] if fits else [[index] for index in batch]:
                found = generate(part)
                for index, text in zip(part, found, strict=True):
                    texts[index] = text
                if on_done is not None:
                    on_done(part, found)
            bar.update(len(batch))

        widths = [len(ids) + length for ids, length in zip(encoded, lengths, strict=True)]
        in_batches(widths, tokens_per_batch, run)
    return texts


def generated_tokens(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    lengths: list[int],
    **settings: Any,
) -> list[list[int]]:
    """
    Continuations of token lists, which are padded on the left, as generation needs it.

    Args:
        model (`PreTrainedModel`):
            The model that is asked; its habits of generation count for nothing.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        prompts (`list[list[int]]`):
            Tokens of each prompt.
        lengths (`list[int]`):
            Most tokens of each continuation.
        settings:
            Settings of generation, passed to `model.generate`.

    Returns:
        `list[list[int]]`: the tokens behind each prompt, special ones included.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    length = max(map(len, prompts))
    input_ids = torch.tensor([[pad] * (length - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    with inference(model):
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=max(lengths),
            pad_token_id=pad,
            synced_gpus=False,  # each process asks about prompts of its own; see `Processes.lockstep`
            **NO_HABITS | settings,
        )
    return [tokens[:most] for tokens, most in zip(output[:, length:].tolist(), lengths, strict=True)]


def room(model: Any, ids: list[int]) -> int:
    """How many tokens fit behind `ids` into the model's context."""
    return (context_length(model.config) or sys.maxsize) - len(ids)
