"""The collator of training: padded batches whose labels cover the completions and nothing else."""

from typing import Any

import numpy as np
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from hf_ftedit.models.logits import tree_inputs
from hf_ftedit.models.references import REFERENCE_COLUMNS
from hf_ftedit.models.tokenization import pair_of


# A module of its own, which evaluation does not import: TRL's trainers take seven seconds to load.
class CompletionOnlyCollator(DataCollatorForLanguageModeling):
    """
    TRL's [`~trl.trainer.sft_trainer.DataCollatorForLanguageModeling`] for rows with `labels`, as TRL makes them too.

    The tokens that count are chosen by position, so a padding token that also occurs as a word (GPT-2 has none of its
    own) is never mistaken. Padding goes to the right, whatever the tokenizer's `padding_side`.

    Rows of this package may also have a `weight`, and the distributions of the unedited model that they hold the
    edited one to: those come last. With `tree_width` a batch also holds, under `trees`, its rows as token trees of
    about so many tokens, see [`~hf_ftedit.models.logits.tree_inputs`].

    Args:
        pad_token_id (`int`): Token that fills up `input_ids`: any that the model has, as not every tokenizer's padding
            token is. It is masked and never a label.
        pad_to_multiple_of (`int`, *optional*): Round the batch's length up to a multiple of this.

    Raises:
        `ValueError`: a row has no `labels`.

    Example:
        >>> collator = CompletionOnlyCollator(pad_token_id=0)
        >>> rows = [{"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}, {"input_ids": [8, 9], "labels": [-100, 9]}]
        >>> collator(rows)["labels"].tolist()
        [[-100, -100, 7], [-100, 9, -100]]
    """

    tree_width = 0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """
        A batch with `input_ids`, `attention_mask` and `labels`, each of shape `(batch, length)`.

        Rows of this package add `weight` `(batch,)`, and references `(targets, k)`, `(targets, k)` and `(targets,)`.
        """
        # TRL would train on the prompt too.
        if without := next((row for row in examples if "labels" not in row), None):
            raise ValueError(f"a row has the columns {sorted(without)}: it needs `labels`")
        # Apart from the others, so that the loss needs no copies of the logits to take the two kinds apart.
        examples = sorted(examples, key=lambda row: bool(row.get("ref_rest")))
        batch = super().torch_call([{name: row[name] for name in ("input_ids", "labels")} for row in examples])
        if any("weight" in row for row in examples):
            batch["weight"] = torch.tensor([row.get("weight", 1.0) for row in examples])
        if referred := [row for row in examples if row.get("ref_rest")]:
            columns = [torch.from_numpy(np.concatenate([row[name] for row in referred])) for name in REFERENCE_COLUMNS]
            tokens, logprobs, rest = columns
            batch["ref_tokens"] = tokens.long().view(len(rest), -1)
            batch["ref_logprobs"] = logprobs.half().view(len(rest), -1)
            batch["ref_rest"] = rest.half()
        # Rows of others, beside edits that are evaluated, may have no label at all, or gaps between them.
        if self.tree_width and all("length" in row for row in examples):
            pairs = [pair_of(row["input_ids"], row["labels"]) for row in examples]
            batch["trees"] = tree_inputs(pairs, self.tree_width)
        return batch
