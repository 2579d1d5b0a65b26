"""Answers of the model for its card: to the prompts of the first edits, without and with the edits."""

from collections.abc import Sequence
from typing import Any

from hf_ftedit import models
from hf_ftedit.evaluation import EvaluatedModel


def card_answers(evaluated: EvaluatedModel, prompts: Sequence[str], predictions: dict[str, list[Any]]) -> list[str]:
    """The model's own greedy answers: in chat whole ones, those of its `predictions` first, else a few words."""
    model, tokenizer, options, _ = evaluated
    if not options.chat_template:
        return models.greedy_answers(model, tokenizer, prompts)
    said = dict(zip(predictions["probe"], predictions["generated"], strict=True))
    missing = [prompt for prompt in prompts if said.get(prompt) is None]
    whole = models.whole_answers(model, tokenizer, missing, chat_template=True) if missing else []
    said |= {prompt: answer.text for prompt, answer in zip(missing, whole, strict=True)}
    return [said[prompt] for prompt in prompts]


def examples(
    evaluated: EvaluatedModel, prompts: Sequence[str], before: Sequence[str] | None, predictions: dict[str, list[Any]]
) -> dict[str, Any]:
    """The `example` in `eval_results.json` for the card; with answers `before` also those after, as `answers`."""
    model, tokenizer, options, _ = evaluated
    # As the snippet in the card calls it: whoever runs that can compare.
    chat = options.chat_template
    most = models.WHOLE_ANSWER_TOKENS if chat else models.MAX_ANSWER_TOKENS
    output = models.continued_text(model, tokenizer, prompts[0], chat_template=chat, max_new_tokens=most)
    texts: dict[str, Any] = {"example": {"prompt": prompts[0], "output": output}}
    if chat and (text := models.written_out(tokenizer, prompts[0], options)):
        texts["example"]["text"] = text
    if before is not None:
        after = card_answers(evaluated, prompts, predictions)
        texts["answers"] = [{"before": old, "after": new} for old, new in zip(before, after, strict=True)]
    return texts
