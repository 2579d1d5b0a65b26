"""Text from a model, in batches: samples from the empty context, and greedy answers to prompts."""

from __future__ import annotations

import random
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from hf_ftedit.answers import first_sentence
from hf_ftedit.inference import inference
from hf_ftedit.memory import in_batches
from hf_ftedit.processes import Processes, process_state
from hf_ftedit.records import EditError
from hf_ftedit.tokenization import context_length, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ANSWER_TOKENS = 8
TEXT_TOKENS = 100
# A chat model's habits, such as a penalty on repetition, are not what it knows.
NO_HABITS: dict[str, Any] = {
    **{"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0},
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
}

OnDone: TypeAlias = Callable[[Sequence[int], Sequence[str]], None]


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
    settings = {"do_sample": True, "top_k": top_k, "top_p": 1.0, "temperature": 1.0}
    texts: list[str] = []
    with _seeded(model, seed):
        for _ in range(22):  # refused samples are drawn again, but not for ever
            batch = [[start]] * (count - len(texts))
            tokens = _generate(model, tokenizer, batch, [length] * len(batch), min_new_tokens=length, **settings)
            cleaned = map(clean_text, tokenizer.batch_decode(tokens, skip_special_tokens=True))
            texts += [text for text in cleaned if text and accept(text)]
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
    tokens_per_batch: int = 2048,
    desc: str = "Answering",
    on_done: OnDone | None = None,
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
        tokens_per_batch (`int`, *optional*, defaults to `2048`):
            Tokens of a batch, answers and padding included; halved where memory does not suffice.
        desc (`str`, *optional*, defaults to `"Answering"`):
            Label of the progress bar.
        on_done (`Callable`, *optional*):
            Told the indices of the prompts of each batch, and their answers.

    Raises:
        [`EditError`]: a prompt leaves no room in the model's context, or not even one fits into memory.

    Returns:
        `list[str]`: answers in the order of the prompts, without surrounding space; empty for no answer.
    """
    encoded = encode_prompts(tokenizer, prompts, chat_template=chat_template)
    lengths = [min(max_new_tokens, _room(model, ids)) for ids in encoded]

    def answer(batch: Sequence[int]) -> list[str]:
        ids = [encoded[index] for index in batch]
        ended = StoppingCriteriaList([_SentenceEnded(tokenizer, max(map(len, ids)))])
        settings = {"do_sample": False, "stopping_criteria": ended}
        tokens = _generate(model, tokenizer, ids, [lengths[index] for index in batch], **settings)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [first_sentence(text.rstrip("\ufffd")) for text in texts]  # the last token may be part of a character

    return _in_batches(answer, prompts, encoded, lengths, model, tokens_per_batch, desc, on_done)


def shared_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **how: Any
) -> list[str]:
    """
    [`greedy_answers`] under `accelerate launch`: every process must call this; each prompt is asked by one of them.

    Args:
        model (`PreTrainedModel`):
            Model to ask.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        prompts (`Sequence[str]`):
            Prompts.
        how:
            Passed to [`greedy_answers`].

    Raises:
        [`EditError`]: as [`greedy_answers`], in any of the processes.
    """
    processes = Processes(model)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    said = processes.each_once(
        order, lambda mine: greedy_answers(model, tokenizer, [prompts[place] for place in mine], **how)
    )
    answers = [""] * len(prompts)
    for place, answer in zip(order, said, strict=True):
        answers[place] = answer
    return answers


def sampled_texts(
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
    lengths = [min(max(1, length - len(ids)), _room(model, ids)) for ids in encoded]

    def write(batch: Sequence[int]) -> list[str]:
        ids, wanted = [encoded[index] for index in batch], [lengths[index] for index in batch]
        noise = _gumbel([seeds[index] for index in batch], (max(wanted), top_k)).to(model.device)
        sample = LogitsProcessorList([_TopKSample(noise, max(map(len, ids)))])
        settings = {"do_sample": False, "min_new_tokens": max(wanted), "logits_processor": sample}
        tokens = _generate(model, tokenizer, ids, wanted, **settings)
        whole = [before + after for before, after in zip(ids, tokens, strict=True)]
        return tokenizer.batch_decode(whole, skip_special_tokens=True)

    return _in_batches(write, prompts, encoded, lengths, model, tokens_per_batch, desc, on_done)


def continued_text(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    chat_template: bool = False,
    max_new_tokens: int = MAX_ANSWER_TOKENS,
) -> str | None:
    """
    The prompt and what follows it, as the snippet of a model card prints it; `None` where the context has no room.

    Args:
        model (`PreTrainedModel`):
            Model to ask, with the habits of its own generation settings.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        prompt (`str`):
            What to go on from.
        chat_template (`bool`, *optional*, defaults to `False`):
            Ask through the tokenizer's chat template.
        max_new_tokens (`int`, *optional*, defaults to `8`):
            Most tokens that follow.
    """
    encoded = encode_prompts(tokenizer, [prompt], chat_template=chat_template)
    if _room(model, encoded[0]) < max_new_tokens:
        return None
    ids = torch.tensor(encoded, device=model.device)
    was_training = model.training
    model.eval()
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        synced_gpus=False,  # all processes ask the same
    )
    model.train(was_training)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def clean_text(text: str) -> str:
    """`text` on one line without control characters, doubled spaces, or sentence ends at its end."""
    text = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in text)
    return re.sub(r" +", " ", text.replace("\ufffd", "")).strip().rstrip(".!?,;: ")


def _in_batches(
    generate: Callable[[Sequence[int]], list[str]],
    prompts: Sequence[str],
    encoded: Sequence[list[int]],
    lengths: Sequence[int],
    model: Any,
    tokens_per_batch: int,
    desc: str,
    on_done: OnDone | None,
) -> list[str]:
    """What `generate` makes of the indices of prompts of similar length, each of which goes on for its `lengths`."""
    for prompt, length in zip(prompts, lengths, strict=True):
        if length < 1:
            raise EditError(f"prompt {prompt!r} fills the model's context; give a shorter one")
    texts = [""] * len(prompts)
    hides = None if process_state().is_main_process else True
    with tqdm(total=len(prompts), desc=desc, unit="prompt", leave=False, disable=hides) as bar:

        def run(batch: list[int]) -> None:
            longest = max(batch, key=lambda index: len(encoded[index]))
            fits = max(lengths[index] for index in batch) <= _room(model, encoded[longest])
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


def _room(model: Any, ids: list[int]) -> int:
    """How many tokens fit behind `ids` into the model's context."""
    return (context_length(model.config) or sys.maxsize) - len(ids)


def _generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    lengths: list[int],
    **settings: Any,
) -> list[list[int]]:
    """Continuations of token lists, each of at most so many tokens; padded on the left, as generation needs it."""
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


class _SentenceEnded(StoppingCriteria):
    """A row is done when its first sentence is; the text is looked at after every fourth token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if (input_ids.shape[1] - self.start) % 4:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        texts = [f"{text.lstrip()}x" for text in texts]  # a full stop at the very end may be that of "3.5"
        return torch.tensor([first_sentence(text) != text for text in texts], device=input_ids.device)


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


@contextmanager
def _seeded(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore its random states behind it."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
