"""Sampled text: prefixes from the empty context, and continuations that depend on their seed alone."""

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.errors import EditError
from hf_ftedit.models.distributed import Processes
from hf_ftedit.models.generation import Prompt, generated_texts, generated_tokens, room
from hf_ftedit.models.tokenization import encode_prompts

# Tokens of a text with those of its prompt, as in ROME's evaluation.
TEXT_TOKENS = 100
MAX_DRAWS = 22


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
    Sample `count` texts of `length` tokens from the empty context, on one line; those that `accept` refuses again.

    With a `top_k` of 0 any token may be drawn.

    Under `accelerate launch` every process must call this; all return the same texts, however many they are.
    """
    start = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None)
    if start is None:
        raise EditError("the tokenizer has neither a beginning- nor an end-of-sequence token to sample from; set one")
    if length > (most := room(model, [start])):
        raise EditError(f"prefix_lengths: {length} tokens do not fit into the model's context; give {most} or less")
    prompt = Prompt("", [start], length)
    sizes = [min(batch_size, count - begin) for begin in range(0, count, batch_size)]
    processes = Processes(model)
    devices = [model.device] if model.device.type == "cuda" else []

    def sample(numbers: list[int]) -> list[list[str]]:
        batches = []
        desc = f"Sampling prefixes of {length} tokens"
        for number in tqdm(numbers, desc=desc, unit="batch", leave=False, disable=processes.hides_bar):
            # Each batch has a seed of its own, so that it does not matter which process samples it.
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(random.Random(f"{seed}/{number}").getrandbits(63) if number else seed)
                batches.append(_sampled_batch(model, tokenizer, [prompt] * sizes[number], top_k, accept))
        return batches

    batches = processes.each_once(range(len(sizes)), sample)
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
) -> list[str]:
    """
    Continue each prompt to a text of `length` tokens, sampled among the `top_k` likeliest; prompts included.

    Every process must call this, and all get all.
    """
    encoded = encode_prompts(tokenizer, prompts)

    def write(batch: list[Prompt]) -> list[str]:
        steps = max(prompt.new_tokens for prompt in batch)
        sample = _TopKSample([prompt.seed for prompt in batch], steps, top_k, max(len(prompt.ids) for prompt in batch))
        settings = {"do_sample": False, "min_new_tokens": steps, "logits_processor": LogitsProcessorList([sample])}
        tokens = generated_tokens(model, tokenizer, batch, **settings)
        whole = [prompt.ids + after for prompt, after in zip(batch, tokens, strict=True)]
        return tokenizer.batch_decode(whole, skip_special_tokens=True)

    most = [min(max(1, length - len(ids)), room(model, ids)) for ids in encoded]
    tasks = [Prompt(*parts) for parts in zip(prompts, encoded, most, seeds, strict=True)]
    return generated_texts(model, tasks, write, tokens_per_batch=tokens_per_batch, desc=desc)


def clean_text(text: str) -> str:
    """Put `text` on one line without control characters, doubled spaces, or sentence ends at its end."""
    text = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in text)
    return re.sub(r" +", " ", text.replace("\ufffd", "")).strip().rstrip(".!?,;: ")


def _sampled_batch(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], top_k: int, accept: Callable[[str], bool]
) -> list[str]:
    """A usable text for each prompt; all prompts are the same."""
    settings = {"do_sample": True, "top_k": top_k, "top_p": 1.0, "temperature": 1.0}
    texts: list[str] = []
    # Refused texts are drawn again, but not for ever: a model may have no usable one.
    for _ in range(MAX_DRAWS):
        missing = prompts[len(texts) :]
        tokens = generated_tokens(model, tokenizer, missing, min_new_tokens=missing[0].new_tokens, **settings)
        cleaned = map(clean_text, tokenizer.batch_decode(tokens, skip_special_tokens=True))
        texts += [text for text in cleaned if text and accept(text)]
        if len(texts) == len(prompts):
            return texts
    raise EditError(f"only {len(texts)} of {len(prompts)} sampled prefixes are usable; use paraphrase_strategy 'none'")


class _TopKSample(LogitsProcessor):
    """Keeps of each row the one token that its seed samples among its `top_k` likeliest."""

    def __init__(self, seeds: Sequence[int], steps: int, top_k: int, start: int) -> None:
        # On the CPU, so that every device draws the same.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        uniform = torch.stack([torch.rand(steps, top_k, generator=generator) for generator in generators])
        self.noise, self.start = -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7))), start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        # The largest log-probability with Gumbel noise is a sample (Maddison et al. 2014, arXiv 1411.0030), which
        # depends on its own seed alone: `torch.multinomial` would make it depend on the rest of the batch.
        self.noise = self.noise.to(scores.device)
        values, tokens = scores.topk(self.noise.shape[2], dim=-1)
        chosen = (values + self.noise[:, input_ids.shape[1] - self.start]).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.gather(1, chosen), 0.0)
