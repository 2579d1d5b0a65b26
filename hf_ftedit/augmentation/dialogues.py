"""What stands before a question in a chat, and what users say behind an answer."""

from collections.abc import Sequence

from hf_ftedit.augmentation.banks import bank
from hf_ftedit.augmentation.languages import language_of
from hf_ftedit.models import History


def known_histories() -> list[History]:
    """System prompts and earlier turns that the package brings."""
    known = bank("conversations.yaml")
    return [*([_message("system", text)] for text in known["systems"]), *(answered(*turn) for turn in known["turns"])]


def answered(prompt: str, answer: str) -> History:
    """A question and its answer, as what was said before."""
    return [_message("user", prompt), _message("assistant", answer)]


def follow_ups(prompt: str) -> Sequence[str]:
    """What users say behind the answer to a prompt, in its language."""
    language = language_of(prompt)
    return language.following if language else bank("conversations.yaml")["following"]


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}
