"""Prompts and targets as token ids and labels: the one place that decides which tokens are a target's."""

from collections.abc import Iterable, Sequence
from itertools import chain
from os.path import commonprefix
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from hf_ftedit.errors import EditError, shown
from hf_ftedit.models.dialogue import PROMPT, History, Turn, turns

IGNORE_INDEX = -100


class EncodedPair(NamedTuple):
    """One prompt with its target as token ids."""

    input_ids: list[int]  # of prompt and target, with the special tokens that the tokenizer puts in front
    start: int  # position of the target's first token, at least 1: every target token has a token before it

    @property
    def labels(self) -> list[int]:
        """Labels of shape `(length,)`: the target's tokens, and -100 at every position before them."""
        return [IGNORE_INDEX] * self.start + self.input_ids[self.start :]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    ends: Sequence[bool] | None = None,
    chat_template: bool = False,
    max_length: int | None = None,
    names: Sequence[str] | None = None,
    histories: Sequence[History] | None = None,
) -> list[EncodedPair]:
    """
    Tokenize prompts with their completions, and decide by position where each completion begins.

    Its tokens are those after the longest common prefix of the prompt alone and the prompt with its completion, and at
    least one. Where `ends` is true, the end of the assistant's turn (without `chat_template`, the end of sequence) is
    part of the completion. Raises [`EditError`] by `names` where a pair exceeds `max_length` or its completion adds no
    token. In a chat, `histories` are the messages before each prompt.
    """
    # An end of sequence that a tokenizer adds by itself is left out: an edited fact may be followed by anything.
    if not prompts:
        return []
    for prompt, completion in zip(prompts, completions, strict=True):
        if not isinstance(prompt, str) or not isinstance(completion, str):
            raise EditError(f"prompt {shown(prompt)} has the completion {shown(completion)}; give texts")
    front = [] if chat_template else front_tokens(tokenizer)
    end = tokenizer.eos_token or ""
    places = turns(tokenizer, prompts, histories) if chat_template else [Turn(text, "", end) for text in prompts]
    texts = []
    for turn, completion, is_end in zip(places, completions, ends or [False] * len(places), strict=True):
        if is_end and not turn.end:
            raise EditError(
                "this tokenizer has no end-of-sequence token, so the end of an answer cannot be learned; turn "
                "end_of_answer off"
            )
        answer = turn.gap + completion.lstrip() if chat_template else completion
        texts.append(turn.before + answer + (turn.end if is_end else ""))
    befores = [turn.before for turn in places]
    # Tokenized twice, as merges may cross the boundary. Offset mappings would show it, but slow tokenizers have none.
    distinct = list(dict.fromkeys(befores))
    alone = dict(zip(distinct, _plain_ids(tokenizer, distinct), strict=True))
    pairs = []
    for index, (before, whole) in enumerate(zip(befores, _plain_ids(tokenizer, texts), strict=True)):
        pair = EncodedPair(front + whole, len(front) + len(commonprefix([alone[before], whole])))
        _check_pair(pair, names[index] if names else f"prompt {shown(prompts[index])}", completions[index], max_length)
        pairs.append(pair)
    return pairs


def pair_of(input_ids: Sequence[int], labels: Sequence[int]) -> EncodedPair:
    """The pair that a row of `input_ids` and `labels` was made of."""
    start = next(place for place, label in enumerate(labels) if label != IGNORE_INDEX)
    return EncodedPair(list(input_ids), start)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    chat_template: bool = False,
    histories: Sequence[History] | None = None,
) -> list[list[int]]:
    """
    Tokenize prompts as they stand before an answer, with the special tokens in front and none behind.

    In a chat, `histories` are the messages before each prompt.
    """
    if chat_template:
        return _plain_ids(tokenizer, [turn.before for turn in turns(tokenizer, prompts, histories)])
    front = front_tokens(tokenizer)
    return [front + ids for ids in _plain_ids(tokenizer, prompts)]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int | None
) -> list[list[EncodedPair]]:
    """Tokenize whole texts, each in windows of at most `longest` tokens that predict all but the text's first one."""
    windows = []
    for ids in encode_prompts(tokenizer, texts):
        # One token is shared, so that every token but the very first is predicted once. A stride of half a window
        # would give each more context, at twice the cost.
        size = longest or len(ids)
        starts = range(0, len(ids) - 1, max(1, size - 1))
        windows.append([EncodedPair(ids[start : start + size], 1) for start in starts])
    return windows


def front_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Special tokens that `tokenizer` puts before a text, such as `<s>`; an empty list for GPT-2."""
    with_special = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            return with_special[:start]
    return []


def context_length(config: Any) -> int | None:
    """Most tokens that a model with this `transformers` configuration takes, or `None` where it has no limit."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
    lengths = (getattr(config.get_text_config(), name, None) for name in names)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def vocabulary_size(config: Any) -> int | None:
    """Rows of the embedding of a model with this `transformers` configuration, or `None` where it does not tell."""
    return getattr(config.get_text_config(), "vocab_size", None)


def check_tokens(
    tokenizer: PreTrainedTokenizerBase, config: Any, texts: Iterable[tuple[str, str]], *, chat_template: bool = False
) -> None:
    """
    Check that the embedding of a model with this configuration has each token of `texts`, pairs of a name and a text.

    Raises:
        [`EditError`]: one is beyond it, such as a token that was added to the tokenizer alone.
    """
    size = vocabulary_size(config)
    if size is None or len(tokenizer) <= size:
        return
    if chat_template:
        frames = ((turn.before, turn.end) for turn in turns(tokenizer, [PROMPT]))
        texts = chain((("the chat template", "".join(frame)) for frame in frames), texts)
    if tokenizer.vocab_size <= size:  # only added tokens are beyond, as in Gemma 3: few texts need to be tokenized
        added = [str(token).casefold() for place, token in tokenizer.added_tokens_decoder.items() if place >= size]
        texts = (pair for pair in texts if any(token in pair[1].casefold() for token in added))
    for name, text in chain([("the beginning of every text", "")], texts):
        if beyond := [token for token in encode_prompts(tokenizer, [text])[0] if token >= size]:
            raise EditError(
                f"{name} has the token {tokenizer.convert_ids_to_tokens(beyond[0])!r}, for which the model has no "
                "embedding; call model.resize_token_embeddings(len(tokenizer)), and save both, or leave it out"
            )


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts without special tokens."""
    # Masks and types would be lists as long as the ids, of all edits at once, that nobody reads.
    settings: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(list(texts), add_special_tokens=False, **settings)["input_ids"] if texts else []


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Token that ends an answer in the chat template, such as `<|im_end|>`; `None` where no text can be ended."""
    ids = _plain_ids(tokenizer, [turn.end for turn in turns(tokenizer, [PROMPT])])[0]
    return ids[-1] if ids else None


def _check_pair(pair: EncodedPair, name: str, completion: str, max_length: int | None) -> None:
    if not completion.strip():
        raise EditError(f"{name}: the target is empty; give the text that should follow the prompt")
    if pair.start == len(pair.input_ids):  # a normalizer drops all of it, and the prompt's end would be learnt
        raise EditError(f"{name}: the tokenizer makes no token of the target {completion!r}; give another text")
    if pair.start < 1:
        raise EditError(f"{name}: no token stands before the target {completion.strip()!r}; give a longer prompt")
    if max_length is not None and len(pair.input_ids) > max_length:
        raise EditError(
            f"{name}: prompt and target have {len(pair.input_ids)} tokens, at most {max_length} fit "
            "(the model's context, or max_length); shorten one of them"
        )
