"""Greedy text: what a model answers to prompts by itself, and how it goes on in the snippet of a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from hf_ftedit.models.answer_text import first_sentence
from hf_ftedit.models.decoding import OnDone, generated_tokens, room, texts_in_batches
from hf_ftedit.models.distributed import Processes
from hf_ftedit.models.tokenization import encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_ANSWER_TOKENS = 8


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
    lengths = [min(max_new_tokens, room(model, ids)) for ids in encoded]

    def answer(batch: Sequence[int]) -> list[str]:
        ids = [encoded[index] for index in batch]
        ended = StoppingCriteriaList([_SentenceEnded(tokenizer, max(map(len, ids)))])
        settings = {"do_sample": False, "stopping_criteria": ended}
        tokens = generated_tokens(model, tokenizer, ids, [lengths[index] for index in batch], **settings)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [first_sentence(text.rstrip("\ufffd")) for text in texts]  # the last token may be part of a character

    return texts_in_batches(answer, prompts, encoded, lengths, model, tokens_per_batch, desc, on_done)


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
    if room(model, encoded[0]) < max_new_tokens:
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
