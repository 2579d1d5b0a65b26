"""Answers of the model for its card: to the prompts of the first edits, without and with the edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_ftedit.models import continued_text, greedy_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    before: Sequence[str] | None,
    *,
    chat_template: bool = False,
) -> dict[str, Any]:
    """The `example` in `eval_results.json` for the card; with answers `before` also those after, as `answers`."""
    # As the snippet in the card calls it: whoever runs that can compare.
    output = continued_text(model, tokenizer, prompts[0], chat_template=chat_template)
    texts: dict[str, Any] = {"example": {"prompt": prompts[0], "output": output}}
    if before is not None:
        after = greedy_answers(model, tokenizer, prompts, chat_template=chat_template)
        texts["answers"] = [{"before": old, "after": new} for old, new in zip(before, after, strict=True)]
    return texts
