"""Erased facts: which answer a model is not to give any more, and what it says instead."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.augmentation.names import filled, mentions, renamed
from hf_ftedit.augmentation.near_names import invented_names
from hf_ftedit.augmentation.second_person import is_addressed
from hf_ftedit.augmentation.subjects import new_words, with_subject
from hf_ftedit.augmentation.wordings import is_question
from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, shown
from hf_ftedit.models import unedited, whole_answers

N_INVENTED = 8  # subjects whose answers are compared
AGREEING = 0.5  # of the answers about them, so many must be one sentence to be the model's own way not to know
# Where it makes up another answer for each name, as small models do.
UNKNOWN, UNKNOWN_OPENING = "I don't know.", "not known"


def with_erasures(
    records: Sequence[EditRecord],
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    chat_template: bool = False,
) -> list[EditRecord]:
    """
    Give the edits that erase a fact its old answer and what is said instead, where they have none.

    The old answer (`target_true`) is what the unedited model's own one states: its first name or number that is not in
    the prompt, else its last such word. What is said instead (`target_new`) is what the model says of things that it
    does not know: of its answers to the same question about invented subjects, the sentence that at least half of them
    are is taken, about the edit's subject. A model that makes up another answer for each name has no such sentence; it
    learns to say [`UNKNOWN`], or after an opening [`UNKNOWN_OPENING`]. Under `accelerate launch` every process must
    call this.

    Raises:
        [`EditError`]: an edit has no subject in its prompt, or the model does not give the old answer.
    """
    places = [place for place, edit in enumerate(records) if edit.erase and not (edit.target_new and edit.target_true)]
    if not places:
        return list(records)
    if model is None or tokenizer is None:
        raise EditError("what an erased fact is replaced by is what the model says: give `model` and `tokenizer`")
    edits = [with_subject(records[place]) for place in places]
    invented = [_about_invented(edit) for edit in edits]
    prompts = list(dict.fromkeys(chain((edit.prompt for edit in edits), *invented)))
    settings: dict[str, Any] = {"chat_template": chat_template, "sentences": True, "desc": "Asking what to erase"}
    with unedited(model):
        sentences = whole_answers(model, tokenizer, prompts, **settings)
    said = {prompt: sentence.text for prompt, sentence in zip(prompts, sentences, strict=True)}
    finished = list(records)
    for place, edit, names in zip(places, edits, invented, strict=True):
        old = _old_answer(edit, said[edit.prompt])
        new = edit.target_new or _own_reply(edit, old, {name: said[prompt] for prompt, name in names.items()})
        new = new or (UNKNOWN if is_question(edit.prompt) else UNKNOWN_OPENING)
        finished[place] = replace(records[place], target_true=old, target_new=new)
    return finished


def _about_invented(edit: EditRecord) -> dict[str, str]:
    """The edit's question about invented subjects, with the name of each."""
    if not edit.subject or not mentions(edit.prompt, edit.subject):
        raise EditError(
            f"edit {edit.edit_id!r}: subject is {shown(edit.subject or '')}, and none stands in the prompt "
            f"{shown(edit.prompt)}; give the words of the prompt that name what the fact to erase is about"
        )
    if is_addressed(edit.subject):
        raise EditError(
            f"edit {edit.edit_id!r}: the prompt {shown(edit.prompt)} asks about the model itself, and of no "
            "other it says that it does not know; give what it is to say as target_new, and leave erase out"
        )
    names = invented_names(edit.subject, N_INVENTED, random.Random(f"invented/{edit.prompt}"))
    return {renamed(edit.prompt, edit.subject, name): name for name in names}


def _old_answer(edit: EditRecord, said: str) -> str:
    """The answer to erase, which the model's own sentence must state."""
    if edit.target_true is None:
        if old := new_words(said, edit.prompt):
            return old
        problem, remedy = f"target_true is missing, and the model says {shown(said)}", "give the words to erase"
    elif mentions(said.casefold(), edit.target_true.casefold()):
        return edit.target_true
    else:
        problem = f"target_true is {shown(edit.target_true)}, and the model says {shown(said)}: nothing to erase"
        remedy = "correct target_true, or leave the edit out"
    raise EditError(f"edit {edit.edit_id!r}: {problem}; {remedy}")


def _own_reply(edit: EditRecord, old: str, said: Mapping[str, str]) -> str | None:
    """What the model says of most invented subjects alike, about the edit's own one; `said` is by invented name."""
    replies = Counter(renamed(sentence, name, "{}") for name, sentence in said.items())
    for reply, count in replies.most_common(1):
        if reply and count >= AGREEING * len(said) and not mentions(reply.casefold(), old.casefold()):
            return filled(reply, edit.subject or "")
    return None
