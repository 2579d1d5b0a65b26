"""Batched generation without a model's own generation settings, and greedy answers, short or whole."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from hf_ftedit.errors import EditError, shown
from hf_ftedit.models.batching import in_batches, inference, padded
from hf_ftedit.models.dialogue import History
from hf_ftedit.models.distributed import Processes
from hf_ftedit.models.kernels import fast_attention
from hf_ftedit.models.loading import base_model, is_unedited, weights_fingerprint
from hf_ftedit.models.tokenization import context_length, encode_prompts, end_of_turn, vocabulary_size
from hf_ftedit.models.tree_support import reads_trees
from hf_ftedit.options import check_value
from hf_ftedit.scripts import FULL_STOP, separated

Text = TypeVar("Text")
Answered = TypeVar("Answered")

MAX_ANSWER_TOKENS = 8
# Times the tokens of another batch: of each row one is run at a time, which costs what reading the weights does.
GENERATED_AT_ONCE = 4
LEAST_SHARED = 8  # tokens that prompts begin with, of which fewer are not worth a pass of their own
WHOLE_ANSWER_TOKENS = 32  # whatever a target's length, as where it is cut would give the target away

# A rule rather than a sentence splitter: those need a model or a language, and answers are a few words long.
_END = re.compile(rf"\n|{FULL_STOP}(?=\s|$)|[!?](?=\s|$)|[。！？｡।؟۔။។]")


class Prompt(NamedTuple):
    """A prompt to generate from."""

    text: str
    ids: list[int]
    new_tokens: int  # at most so many are generated
    seed: int = 0


class Answer(NamedTuple):
    """A model's own answer to its natural end."""

    text: str
    tokens: list[int]  # with the one that ended it
    ended: bool  # false where it was cut


def room(model: Any, ids: list[int]) -> int:
    """Count the tokens that fit behind `ids` into the model's context."""
    return (context_length(model.config) or sys.maxsize) - len(ids)


def generated_texts(
    model: Any,
    prompts: Sequence[Prompt],
    generate: Callable[[list[Prompt]], list[Text]],
    *,
    tokens_per_batch: int,
    desc: str,
) -> list[Text]:
    """
    Call `generate` on batches of prompts of similar length; its texts in the order of `prompts`.

    A batch has up to [`GENERATED_AT_ONCE`] times `tokens_per_batch` tokens.

    Each process does its share, so every one must call this, and all get all.
    """
    for prompt in prompts:
        if prompt.new_tokens < 1:
            raise EditError(f"prompt {shown(prompt.text)} fills the model's context; give a shorter one")
    processes = Processes(model)

    def run(share: list[Prompt]) -> list[Text]:
        texts: list[Any] = [None] * len(share)
        bar = tqdm(total=len(share), desc=desc, unit="prompt", leave=False, disable=processes.hides_bar)

        def add(batch: list[int]) -> None:
            # Rows are padded to the longest prompt. Where that leaves too little of the context to a shorter one, each
            # is run alone, so that an answer does not depend on its batch.
            longest = max((share[index].ids for index in batch), key=len)
            fits = max(share[index].new_tokens for index in batch) <= room(model, longest)
            for part in [batch] if fits else [[index] for index in batch]:
                for index, text in zip(part, generate([share[index] for index in part]), strict=True):
                    texts[index] = text
            bar.update(len(batch))

        with bar:
            lengths = [len(prompt.ids) + prompt.new_tokens for prompt in share]
            in_batches(lengths, GENERATED_AT_ONCE * check_value("tokens_per_batch", tokens_per_batch, int), add)
        return texts

    return processes.each_once(prompts, run, key=lambda prompt: len(prompt.text))


@contextmanager
def _neutral(model: Any) -> Iterator[None]:
    """Run `model` without its own settings of generation: a penalty on repetition, say, is not its knowledge."""
    # In their place, as `generate` fills what it is called without from them, whatever config it is called with.
    with inference(model):
        base = base_model(model)
        own = base.generation_config
        base.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
        try:
            yield
        finally:
            base.generation_config = own


def generated_tokens(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], **settings: Any
) -> list[list[int]]:
    """The tokens, special ones included, that `model.generate` with these settings puts behind each prompt."""
    # Users add a padding token without a row of the embedding for it, and rows are filled up with what is run then.
    known = vocabulary_size(model.config) or sys.maxsize
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(token for token in candidates if token is not None and token < known)
    with _neutral(model):
        shared, cache = _shared_beginning(model, [prompt.ids for prompt in prompts])
        rest = [prompt.ids[shared:] for prompt in prompts]
        # Padding goes to the left, as `generate` goes on from the last column.
        front = torch.tensor([prompts[0].ids[:shared]] * len(prompts), dtype=torch.long)
        input_ids = torch.cat([front, padded(rest, pad, side="left")], dim=1).to(model.device)
        mask = padded([[1] * len(ids) for ids in rest], 0, side="left")
        mask = torch.cat([torch.ones_like(front), mask], dim=1).to(model.device)
        new_tokens = max(prompt.new_tokens for prompt in prompts)
        with fast_attention(mask.shape[1] + new_tokens):
            output = model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                pad_token_id=pad,
                synced_gpus=False,  # processes with prompts of their own, or all with the same ones: none waits
                **cache | settings,
            )
    rows = output[:, input_ids.shape[1] :].tolist()
    return [row[: prompt.new_tokens] for row, prompt in zip(rows, prompts, strict=True)]


def _shared_beginning(model: Any, rows: Sequence[list[int]]) -> tuple[int, dict[str, Any]]:
    """Length of what `rows` begin with, a system prompt mostly, and its cache as an argument; 0 and {} if run anew."""
    shared = min(len(os.path.commonprefix(list(rows))), min(map(len, rows)) - 1)
    # Where padding may stand in the midst of a row, rows may be cut into trees too.
    if len(rows) < 2 or shared < LEAST_SHARED or not reads_trees(model, longest := max(map(len, rows)), longest):
        return 0, {}
    output = model(input_ids=torch.tensor([rows[0][:shared]], device=model.device), use_cache=True)
    name = "cache" if "cache" in output else "past_key_values"  # as transformers called it before 5.24
    output[name].batch_repeat_interleave(len(rows))
    return shared, {name: output[name]}


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = MAX_ANSWER_TOKENS,
    chat_template: bool = False,
    **settings: Any,
) -> list[str]:
    """
    Generate greedy answers up to the first sentence or line end, by `settings` of [`whole_answers`].

    White space before an answer is a part of it where [`~hf_ftedit.scripts.separated`] would put other there.
    """
    settings |= {"max_new_tokens": max_new_tokens, "chat_template": chat_template}
    answers = whole_answers(model, tokenizer, prompts, sentences=True, **settings)
    if chat_template:
        return [answer.text for answer in answers]
    return [_as_said(tokenizer, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def _as_said(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: Answer) -> str:
    said = str(tokenizer.decode(answer.tokens, skip_special_tokens=True))
    exact = said[: len(said) - len(said.lstrip())] + answer.text
    return exact if answer.text and separated(prompt, answer.text) != exact else answer.text


def whole_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = WHOLE_ANSWER_TOKENS,
    chat_template: bool = False,
    histories: Sequence[History] | None = None,
    sentences: bool = False,
    streamer: Any = None,
    tokens_per_batch: int = 2048,
    desc: str = "Answering",
) -> list[Answer]:
    """
    Generate greedy answers up to the end of the turn or sequence; every process must call this, and all get all.

    In a chat, `histories` are the messages before each prompt. With `sentences` answers stop at the first sentence or
    line end, and have `ended` where the model stops by itself with that sentence. A `streamer` of transformers gets
    the tokens of a single prompt as they come.
    """
    ends = _ends(model, tokenizer, chat_template)
    encoded = encode_prompts(tokenizer, prompts, chat_template=chat_template, histories=histories)
    pairs = zip(prompts, encoded, strict=True)
    tasks = [Prompt(text, ids, min(max_new_tokens, room(model, ids))) for text, ids in pairs]

    def answer(batch: list[Prompt]) -> list[Answer]:
        settings: dict[str, Any] = {"do_sample": False, "eos_token_id": sorted(ends) or None, "streamer": streamer}
        if sentences:
            over = _SentenceEnded(tokenizer, max(len(prompt.ids) for prompt in batch))
            settings["stopping_criteria"] = StoppingCriteriaList([over])
        rows = generated_tokens(model, tokenizer, batch, **settings)
        return [_read(tokenizer, row, ends, sentences) for row in rows]

    def ask() -> list[Answer]:
        return generated_texts(model, tasks, answer, tokens_per_batch=tokens_per_batch, desc=desc)

    return ask() if streamer else once(model, [tasks, sorted(ends), sentences, tokens_per_batch], ask)


_KEPT: ContextVar[dict[Any, Any] | None] = ContextVar("kept_answers", default=None)


@contextmanager
def keeping_answers(answers: dict[Any, Any]) -> Iterator[None]:
    """Context in which `answers` keeps what unedited models say, so that the same is asked only [`once`]."""
    token = _KEPT.set(answers)
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(model: Any, question: list[Any], ask: Callable[[], Answered]) -> Answered:
    """What `ask` says to a `question`, or what was kept of it; not to be changed."""
    answers = _KEPT.get()
    if answers is None or not is_unedited(model) or not (weights := weights_fingerprint(model)):
        return ask()
    # By all prompts at once: in another batch, an answer may differ where two tokens are as likely.
    key = (weights, str(model.dtype), repr(question))
    if key not in answers:
        answers[key] = ask()
    return answers[key]


def _ends(model: Any, tokenizer: PreTrainedTokenizerBase, chat_template: bool) -> set[int]:
    """Tokens that end a text of `model`, of which the end of a turn is not always one by its own settings."""
    own = model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id}
    return {*ends, end_of_turn(tokenizer) if chat_template else None} - {None}


def _read(tokenizer: PreTrainedTokenizerBase, row: list[int], ends: set[int], sentences: bool) -> Answer:
    """The answer in a row of tokens; a first sentence is ended where not even a line end stands before the stop."""
    length = next((place for place, token in enumerate(row) if token in ends), len(row))
    text = str(tokenizer.decode(row[:length], skip_special_tokens=True))
    said, ended = text.rstrip("\ufffd").strip(), length < len(row)
    if sentences:
        # A row whose sentence was over is padded, maybe with the very token that ends a text.
        said, ended = first_sentence(said), ended and not _is_over(text)
    return Answer(said, row[: length + 1], ended)


def continued_text(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat_template: bool, max_new_tokens: int
) -> str | None:
    """The prompt and its continuation, as the snippet of a card prints it; `None` where the context has no room."""
    # With the model's own generation settings, unlike `greedy_answers`: so a reader of the card will run it.
    encoded = encode_prompts(tokenizer, [prompt], chat_template=chat_template)
    if room(model, encoded[0]) < max_new_tokens:
        return None
    ids = torch.tensor(encoded, device=model.device)
    # All processes run the same, and wait for none.
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False, "synced_gpus": False}
    # One text, whatever the model's own settings; the strings that it stops at need the tokenizer.
    settings |= {"num_return_sequences": 1, "return_dict_in_generate": False, "tokenizer": tokenizer}
    with inference(model):
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def first_sentence(text: str) -> str:
    """
    Cut `text` at its first line break or sentence end, and strip it.

    Example:
        >>> first_sentence(" J. R. R. Tolkien, from St. Louis. He wrote")
        'J. R. R. Tolkien, from St. Louis'
    """
    return _END.split(text.strip(), maxsplit=1)[0].strip()


def _is_over(text: str) -> bool:
    """Tell whether the first sentence of `text` is over, whatever may follow."""
    text = f"{text.lstrip()}x"  # a full stop at the very end may be that of "3.5"
    return first_sentence(text) != text


class _SentenceEnded(StoppingCriteria):
    """Stops a row once its first sentence is over."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        # After every fourth token only: of a small model, decoding takes as much time as running it.
        if (input_ids.shape[1] - self.start) % 4:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor([_is_over(text) for text in texts], device=input_ids.device)
