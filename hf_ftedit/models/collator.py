"""The collator of training: padded batches whose labels cover the completions and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from hf_ftedit.models.tokenization import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# A module of its own, which evaluation does not import: TRL's trainers take seven seconds to load.
class CompletionOnlyCollator(DataCollatorForLanguageModeling):
    """
    TRL's [`~trl.trainer.sft_trainer.DataCollatorForLanguageModeling`] for rows with `labels` or a `completion_mask`.

    The tokens that count are chosen by position, so a padding token that also occurs as a word (GPT-2 has none of its
    own) is never mistaken. Padding goes to the right, whatever the tokenizer's `padding_side`.

    Args:
        pad_token_id (`int`):
            Token that fills up `input_ids`. Its value does not matter: it is masked and never a label.
        pad_to_multiple_of (`int`, *optional*):
            Round the batch's length up to a multiple of this.

    Raises:
        `ValueError`: a row has neither `labels` nor `completion_mask`.

    Example:
        >>> collator = CompletionOnlyCollator(pad_token_id=0)
        >>> rows = [{"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}, {"input_ids": [8, 9], "labels": [-100, 9]}]
        >>> collator(rows)["labels"].tolist()
        [[-100, -100, 7], [-100, 9, -100]]
    """

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, pad_to_multiple_of: int | None = None
    ) -> CompletionOnlyCollator:
        """Pad with the tokenizer's padding token, or with token 0 where it has none."""
        return cls(pad_token_id=tokenizer.pad_token_id or 0, pad_to_multiple_of=pad_to_multiple_of)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch with `input_ids`, `attention_mask` and `labels`, each of shape `(batch, length)`."""
        return super().torch_call([{"input_ids": row["input_ids"], "labels": _labels(row)} for row in examples])


def _labels(row: dict[str, Any]) -> list[int]:
    if "labels" in row:
        return row["labels"]
    # TRL would train on the prompt too.
    if "completion_mask" not in row:
        raise ValueError(f"a row has the columns {sorted(row)}: it needs `labels` or `completion_mask`")
    pairs = zip(row["input_ids"], row["completion_mask"], strict=True)
    return [token if counts else IGNORE_INDEX for token, counts in pairs]
