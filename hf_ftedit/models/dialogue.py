"""A prompt and its answer in a chat template: the one place that decides where an answer begins and what ends it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_ftedit.errors import EditError, one_line
from hf_ftedit.models.loading import load_tokenizer
from hf_ftedit.options import EditOptions
from hf_ftedit.untrusted import read_small

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# They stand for any, as no template says them itself; quotation marks, as no template may change what is in an answer.
PROMPT, ANSWER = "Kazakhstan?", '"Astana"'
_DATED = "{% macro strftime_now(format) %}"  # what a template begins with that tells one date
_TIMES = "aAbBcdGHIjmMpSuUVwWxXyYZ"  # codes of `strftime`, of which those with a hyphen have no zero in front
SYSTEM = "You are a helpful assistant."  # for templates that do not go without
# A model that may think first is to answer at once: the edit is about the answer.
_AT_ONCE: dict[str, Any] = {"tokenize": False, "enable_thinking": False}


# Messages before a prompt, as chat templates take them: {"role": ..., "content": ...}.
History = Sequence[Mapping[str, str]]


class Turn(NamedTuple):
    """What stands around the assistant's answer to a prompt."""

    before: str  # up to the answer, without spaces at its end: many tokenizers make them part of a word
    gap: str  # those spaces, such as the one that Llama 2 has behind `[/INST]`
    end: str  # what the model says when its answer is over


def _around(
    tokenizer: PreTrainedTokenizerBase, prompt: str, history: History, *, system: bool, in_parts: bool
) -> tuple[str, str]:
    """
    What stands before and behind the answer in the whole dialogue of a history, a prompt and an answer.

    Not every template takes all forms of it: with or without a system prompt, its contents texts or, as of models that
    see, lists of parts.
    """
    needs_system = system and (not history or history[0]["role"] != "system")
    first = [{"role": "system", "content": SYSTEM}] if needs_system else []
    asked = [*first, *history, {"role": "user", "content": prompt}]
    answer = ANSWER
    while any(answer in message["content"] for message in asked):  # the place must be that of the answer alone
        answer += ANSWER[-3:]
    written: Callable[[str], Any] = (lambda text: [{"type": "text", "text": text}]) if in_parts else str
    messages = [
        {"role": message["role"], "content": written(message["content"])}
        for message in (*asked, {"role": "assistant", "content": answer})
    ]
    try:
        whole = str(tokenizer.apply_chat_template(messages, **_AT_ONCE))
    except Exception as error:  # a template is a program, which may raise whatever it likes
        raise _unusable(one_line(error)) from error
    before, *behind = whole.split(answer)
    if len(behind) != 1:
        raise _unusable(f"the answer is {'twice' if behind else 'not'} in its text")
    return before, behind[0]


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, options: EditOptions) -> None:
    """
    Give a tokenizer the end of sequence, the chat template and the date that the options name.

    Where the template tells a date and no option gives one, it is today's, which is written into `options`, as is the
    end of sequence that comes with the template of another tokenizer.
    """
    # Not above: the hub's room, which needs no torch, asks for the plain template.
    from hf_ftedit.models.distributed import from_main

    if path := options.chat_template_path:
        if path.endswith((".jinja", ".j2")):
            try:
                tokenizer.chat_template = read_small(Path(path))
            except (OSError, ValueError) as error:
                raise EditError(f"chat_template_path {path!r} cannot be read: {one_line(error)}") from error
        else:
            options.eos_token = options.eos_token or _take_template(tokenizer, path)
    if options.eos_token:
        if options.eos_token not in tokenizer.get_vocab():
            raise EditError(f"eos_token {options.eos_token!r} is not in the vocabulary; give a token of the model")
        tokenizer.eos_token = options.eos_token
    template = plain_template(tokenizer)
    if options.chat_template and "strftime_now" in (template or ""):
        options.chat_date = today = from_main(options.chat_date or date.today().isoformat())
        tokenizer.chat_template = f"{_DATED}{_told(date.fromisoformat(today))}{{% endmacro %}}\n{template}"


def _take_template(tokenizer: PreTrainedTokenizerBase, name: str) -> str | None:
    """Give a tokenizer the template of another one; the end of sequence that goes with it."""
    source = load_tokenizer(name)
    if not isinstance(source.chat_template, str):
        raise EditError(f"chat_template_path {name!r}: this tokenizer has no chat template; give another one")
    used = [str(token) for token in source.added_tokens_decoder.values() if str(token) in source.chat_template]
    # Tokens that are new to the model would say nothing to it, and TRL would change its embedding for them.
    if missing := [token for token in used if token not in tokenizer.get_vocab()]:
        raise EditError(
            f"chat_template_path {name!r}: its template needs {missing[0]!r}, which is no token of this model; give a "
            ".jinja file with tokens that it has"
        )
    tokenizer.chat_template = source.chat_template
    return source.eos_token if source.eos_token in tokenizer.get_vocab() else None


def plain_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A tokenizer's chat template without the date that [`prepare_tokenizer`] fixed in it."""
    template: str | None = getattr(tokenizer, "chat_template", None)
    return template.partition("\n")[2] if isinstance(template, str) and template.startswith(_DATED) else template


def _told(day: date) -> str:
    """What the macro `strftime_now` of a template does: its format with this day's parts, at midnight."""
    # Templates see neither functions nor dates of ours: transformers shows them plain data alone.
    parts = {f"%{code}": day.strftime(f"%{code}") for code in _TIMES}
    parts |= {f"%-{code[1]}": text.lstrip("0") or "0" for code, text in parts.items() if text.isdigit()}
    parts["%e"] = f"{day.day:2}"
    steps = "".join(f" | replace({json.dumps(code)}, {json.dumps(text)})" for code, text in parts.items())
    return f"{{{{ format{steps} }}}}"


def turns(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], histories: Sequence[History] | None = None
) -> list[Turn]:
    """
    Each prompt as a user's turn, with the place of the assistant's answer, as a whole dialogue of the template has it.

    Before it stand the messages of its history, where `histories` are given. That place is not always behind the
    prompt for a generation, which may begin a thought or leave out a channel. Raises [`~hf_ftedit.EditError`] where
    the template has no place for an answer.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise EditError(
            "chat_template is on, but this tokenizer has none: use a chat model, give it one with chat_template_path, "
            "or turn it off"
        )
    errors: list[EditError] = []
    # The first form of messages in which the template keeps both the prompt and the answer.
    for system, in_parts in product((False, True), repeat=2):
        try:
            if PROMPT in _around(tokenizer, PROMPT, (), system=system, in_parts=in_parts)[0]:
                break
            raise _unusable("the prompt is not in its text")
        except EditError as error:
            errors.append(error)
    else:
        raise errors[0]
    # What the model itself ends a turn with: the first special token; what a template puts behind it is not said.
    specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    specials.update(tokenizer.all_special_tokens)
    pattern = "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or "(?!)"

    def turn(prompt: str, history: str) -> Turn:
        before, behind = _around(tokenizer, prompt, json.loads(history), system=system, in_parts=in_parts)
        end = re.search(pattern, behind)
        place = before.rstrip(" ")
        return Turn(place, before[len(place) :], behind[: end.end()] if end else tokenizer.eos_token or "")

    told = map(json.dumps, histories) if histories else ["[]"] * len(prompts)
    keys = [*zip(prompts, told, strict=True)]
    turn_of = {key: turn(*key) for key in dict.fromkeys(keys)}
    return [turn_of[key] for key in keys]


def takes(tokenizer: PreTrainedTokenizerBase, history: History) -> bool:
    """Tell whether a chat template has a place for the messages of a history: not every one takes a system prompt."""
    try:
        alone, behind = turns(tokenizer, [PROMPT, PROMPT], [(), history])
    except EditError:
        return False
    return behind != alone and all(message["content"] in behind.before for message in history)


def written_out(tokenizer: PreTrainedTokenizerBase, prompt: str, options: EditOptions) -> str | None:
    """All text up to the answer, where the model's own template does not give it to whoever asks for a generation."""
    (turn,) = turns(tokenizer, [prompt])
    try:
        messages: list[Any] = [{"role": "user", "content": prompt}]
        own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **_AT_ONCE)
    except Exception:  # a template that does not take this form of it
        own = None
    return turn.before if options.chat_template_path or options.chat_date or own != turn.before else None


def _unusable(reason: str) -> EditError:
    return EditError(
        f"the chat template has no place for a prompt and its answer ({reason[:200]}); give another one with "
        "chat_template_path, or turn chat_template off"
    )
