"""Prompts and targets as token ids and labels: the one place that decides where a target begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_ftedit.errors import EditError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    chat_template: bool = False,
    max_length: int | None = None,
    names: Sequence[str] | None = None,
) -> list[EncodedPair]:
    """
    Tokenize prompts with their completions, and decide by position where each completion begins.

    Its tokens are those after the longest common prefix of the prompt alone and the prompt with its completion, and at
    least one. Raises [`EditError`] by `names` where a pair exceeds `max_length` or its completion adds no token.
    """
    # An end of sequence that a tokenizer adds behind is left out: an edited fact may be followed by anything.
    if not prompts:
        return []
    if chat_template:
        gap = _before_answers(tokenizer)
        prompts, completions = _as_chat(tokenizer, prompts), [gap + text.lstrip() for text in completions]
        front: list[int] = []
    else:
        front = front_tokens(tokenizer)
    # Tokenized twice, as merges may cross the boundary. Offset mappings would show it, but slow tokenizers have none.
    distinct = list(dict.fromkeys(prompts))
    alone = dict(zip(distinct, _plain_ids(tokenizer, distinct), strict=True))
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    joined = _plain_ids(tokenizer, texts)
    pairs = [_encoded(front, alone[prompt], whole) for prompt, whole in zip(prompts, joined, strict=True)]
    for index, pair in enumerate(pairs):
        _check_pair(pair, names[index] if names else f"prompt {prompts[index]!r}", completions[index], max_length)
    return pairs


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, chat_template: bool = False
) -> list[list[int]]:
    """Tokenize prompts as they stand before an answer, with the special tokens in front and none behind."""
    if chat_template:
        front, prompts = [], _as_chat(tokenizer, prompts)
    else:
        front = front_tokens(tokenizer)
    return [front + ids for ids in _plain_ids(tokenizer, prompts)]


def front_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Special tokens that `tokenizer` puts before a text, such as `<s>`; an empty list for GPT-2."""
    with_special = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            return with_special[:start]
    return []


def context_length(config: object) -> int | None:
    """Most tokens that a model with this `transformers` configuration takes, or `None` where it has no limit."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        length = getattr(text_config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts without special tokens."""
    # Masks and types would be lists as long as the ids, of all edits at once, that nobody reads.
    settings: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(list(texts), add_special_tokens=False, **settings)["input_ids"] if texts else []


def _as_chat(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """Each prompt as a user turn, up to where the assistant's answer begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise EditError("chat_template is on, but this tokenizer has none: use a chat model or turn it off")
    # A model that may think first is to answer at once: the edit is about the answer.
    settings: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return [str(tokenizer.apply_chat_template([{"role": "user", "content": text}], **settings)) for text in prompts]


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Token with which the chat template ends an answer, such as `<|im_end|>`; None where it has no token for it."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False))
    (prompt,) = _as_chat(tokenizer, ["a"])
    ids = _plain_ids(tokenizer, [whole.removeprefix(prompt).partition("b")[2].strip()])[0]
    return ids[0] if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} else None


def _before_answers(tokenizer: PreTrainedTokenizerBase) -> str:
    """White space that the chat template puts before an answer, as Llama 2's does behind `[/INST]`."""
    (prompt,) = _as_chat(tokenizer, ["a"])
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False))
    gap = whole.removeprefix(prompt).partition("b")[0]
    return gap if whole.startswith(prompt) and gap.isspace() else ""


def _encoded(front: list[int], prompt: list[int], whole: list[int]) -> EncodedPair:
    common = 0
    for before, after in zip(prompt, whole, strict=False):
        if before != after:
            break
        common += 1
    # A merge across the boundary may swallow the target; its last token is then what is predicted.
    start = len(front) + min(common, len(whole) - 1)
    return EncodedPair(front + whole, start)


def _check_pair(pair: EncodedPair, name: str, completion: str, max_length: int | None) -> None:
    if not completion.strip():
        raise EditError(f"{name}: the target is empty; give the text that should follow the prompt")
    if pair.start < 1:
        raise EditError(f"{name}: no token stands before the target {completion.strip()!r}; give a longer prompt")
    if max_length is not None and len(pair.input_ids) > max_length:
        raise EditError(
            f"{name}: prompt and target have {len(pair.input_ids)} tokens, at most {max_length} fit "
            "(the model's context, or max_length); shorten the prompt"
        )
