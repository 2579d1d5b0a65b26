"""Padding, and which tokens the loss sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hf_ftedit.models.tokenization import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class CompletionOnlyCollator:
    """
    Pad tokenized rows into a batch whose labels cover the completions and nothing else.

    Which tokens count is decided by position: labels are taken as they are, or made from a `completion_mask`; a
    padding token that also occurs as a word (GPT-2 has none of its own) is never mistaken. Padding goes to the right,
    whatever the tokenizer's `padding_side`, since nothing is generated here.

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

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, pad_to_multiple_of: int | None = None
    ) -> CompletionOnlyCollator:
        """A collator that pads with the tokenizer's padding token, or with token 0 where it has none."""
        return cls(tokenizer.pad_token_id or 0, pad_to_multiple_of)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch with `input_ids`, `attention_mask` and `labels`, each of shape `(batch, length)`."""
        input_ids = [list(row["input_ids"]) for row in features]
        length = max(map(len, input_ids))
        if self.pad_to_multiple_of:
            length += -length % self.pad_to_multiple_of
        return {
            "input_ids": _padded(input_ids, length, self.pad_token_id),
            "attention_mask": _padded([[1] * len(ids) for ids in input_ids], length, 0),
            "labels": _padded([_labels(row) for row in features], length, IGNORE_INDEX),
        }


def _labels(row: dict[str, Any]) -> list[int]:
    if "labels" in row:
        return list(row["labels"])
    if "completion_mask" not in row:
        raise ValueError(f"a row has the columns {sorted(row)}: it needs `labels` or `completion_mask`")
    return [
        token if kept else IGNORE_INDEX for token, kept in zip(row["input_ids"], row["completion_mask"], strict=True)
    ]


def _padded(rows: list[list[int]], length: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows], dtype=torch.long)
