"""A prompt and its answer in a chat template: the one place that decides where an answer begins and what ends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_ftedit.errors import EditError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT, ANSWER = "Kazakhstan?", "Astana"  # stand for any: no template says them itself
SYSTEM = "You are a helpful assistant."  # for templates that do not go without


class Turn(NamedTuple):
    """What stands around the assistant's answer to a prompt."""

    before: str  # up to the answer, without spaces at its end: many tokenizers make them part of a word
    gap: str  # those spaces, such as the one that Llama 2 has behind `[/INST]`
    end: str  # what the model says when its answer is over


class _Form(NamedTuple):
    """How messages are written, as not every template takes all."""

    system: str | None
    in_parts: bool  # content is a list, as that of models that see

    def dialogue(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
        """The whole dialogue of a prompt and an answer, as text."""
        texts = {"system": self.system, "user": prompt, "assistant": ANSWER}
        messages: list[Any] = [
            {"role": role, "content": [{"type": "text", "text": text}] if self.in_parts else text}
            for role, text in texts.items()
            if text is not None
        ]
        try:
            # A model that may think first is to answer at once: the edit is about the answer.
            settings: dict[str, Any] = {"tokenize": False, "enable_thinking": False}
            whole = str(tokenizer.apply_chat_template(messages, **settings))
        except Exception as error:  # a template is a program, which may raise whatever it likes
            raise _unusable(one_line(error)) from error
        if ANSWER not in whole:
            raise _unusable("the answer is not in its text")
        return whole


def turns(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[Turn]:
    """
    Each prompt as a user's turn, with the place of the assistant's answer, as a whole dialogue of the template has it.

    That place is not always behind the prompt for a generation, which may begin a thought or leave out a channel.
    Raises [`~hf_ftedit.EditError`] where the template has no place for an answer.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise EditError("chat_template is on, but this tokenizer has none: use a chat model or turn it off")
    form = _form_of(tokenizer)
    # What the model itself ends a turn with: the first special token; what a template puts behind it is not said.
    specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    specials.update(tokenizer.all_special_tokens)
    pattern = "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or "(?!)"

    def turn(prompt: str) -> Turn:
        before, _, behind = form.dialogue(tokenizer, prompt).rpartition(ANSWER)
        end = re.search(pattern, behind)
        place = before.rstrip(" ")
        return Turn(place, before[len(place) :], behind[: end.end()] if end else tokenizer.eos_token or "")

    found = {prompt: turn(prompt) for prompt in dict.fromkeys(prompts)}
    return [found[prompt] for prompt in prompts]


def _form_of(tokenizer: PreTrainedTokenizerBase) -> _Form:
    """The first form of messages in which a template keeps both the prompt and the answer."""
    errors: list[EditError] = []
    for form in (_Form(system, in_parts) for system, in_parts in product((None, SYSTEM), (False, True))):
        try:
            if PROMPT in form.dialogue(tokenizer, PROMPT).rpartition(ANSWER)[0]:
                return form
            raise _unusable("the prompt is not in its text")
        except EditError as error:
            errors.append(error)
    raise errors[0]


def _unusable(reason: str) -> EditError:
    return EditError(
        f"the chat template has no place for a prompt and its answer ({reason[:200]}); give another one with "
        "chat_template_path, or turn chat_template off"
    )
