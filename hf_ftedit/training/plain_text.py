"""Rows of plain text beside those of edits, so that an edited base model still speaks as it did."""

import random
from itertools import chain
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit import models
from hf_ftedit.augmentation import ProbeTexts, mentions
from hf_ftedit.errors import EditError
from hf_ftedit.training.config import EditConfig
from hf_ftedit.training.task import EditTask

FEWEST, MOST = 32, 512  # rows of plain text; between them, one for each edit
LENGTH = 50  # tokens of a text; more of them would leave less of their weight to what follows a target
DEFAULT_WEIGHT = 0.3


def default_text_weight(args: EditConfig, task: EditTask, *, is_plain: bool) -> float:
    """Weight of plain text where none is given: 0 beside rows of the user, and where the loss is not the plain one."""
    has_edits = task.rows is None or hasattr(task.rows, "records")
    others = (args.loss_type != "nll", args.label_smoothing_factor, args.router_aux_loss_coef, args.parallelism_config)
    return DEFAULT_WEIGHT if task.training_texts or (has_edits and is_plain and not any(others)) else 0.0


def with_plain_text(
    rows: Any, raw: Any, task: EditTask, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: EditConfig
) -> Dataset:
    """
    Tokenized rows with rows of plain text, and the column `weight` that makes the loss (1 - γ) · edits + γ · texts.

    Gangadhar & Stratos 2024 (arXiv 2402.11078) restore the fluency of an edited model so, with γ = 0.1 and the texts'
    likelihood, which `locality_loss` `"nll"` takes; by `"kl"` the distributions of their tokens stay. Each term is a
    mean over the tokens that it learns, over all rows. Every second text is what the unedited model says after the
    targets of `raw`, the `rows` as they were before, as nothing else there tells a model not to say one once more.

    Every process of `accelerate launch` must call this.
    """
    if not isinstance(rows, Dataset):
        raise EditError("text_loss_weight works with edits or prompt-completion rows that are not streamed")
    count, speaker = min(max(len(task.edits), FEWEST), MOST), _Speaker(task, model, tokenizer, args)
    with models.unedited(model):
        # Where the end of sequence is learnt behind a target, nothing is to follow.
        pairs = [] if args.end_of_answer else speaker.continued(raw, count // 2)
        pairs += speaker.texts(count - len(pairs))
    if not pairs:
        return rows
    texts, labels = [pair.input_ids for pair in pairs], [pair.labels for pair in pairs]
    columns = {"input_ids": texts, "labels": labels, "length": [len(ids) for ids in texts]}
    plain = Dataset.from_dict(columns, features=rows.features)
    if args.locality_loss == "kl":
        plain = plain.add_column("kind", ["locality"] * len(texts))
        plain = models.with_references(plain, model, tokens_per_batch=args.eval_tokens_per_batch)
        plain = plain.remove_columns("kind")
    counts = np.array([sum(label != models.IGNORE_INDEX for label in row) for row in chain(rows["labels"], labels)])
    edits, weight = len(rows), args.text_loss_weight or 0.0
    # As in chat, weights take the place of two means for each batch: they are equal in expectation over batches.
    weights = np.full(len(counts), (1 - weight) / counts[:edits].sum())
    weights[edits:] = weight / counts[edits:].sum()
    return concatenate_datasets([rows, plain]).add_column("weight", counts.sum() * weights)


class _Speaker:
    """What a model says, and texts that are given, as rows of plain text; none holds a probe."""

    def __init__(self, task: EditTask, model: Any, tokenizer: PreTrainedTokenizerBase, args: EditConfig) -> None:
        records = [*task.edits, *task.held_out, *task.revoked]
        self.model, self.tokenizer, self.args, self.training_texts = model, tokenizer, args, task.training_texts
        self.longest = min(filter(None, (models.TEXT_TOKENS, args.max_length, models.context_length(model.config))))
        self.probes = ProbeTexts([*task.edits, *task.revoked], task.held_out)
        self.subjects = {record.subject for record in records if record.subject}

    def continued(self, rows: Dataset, count: int) -> list[models.EncodedPair]:
        """What the model says after the completions of at most `count` rows, of each edit in turn."""
        facts = [row["prompt"] + row["completion"] for row in rows.select(self._in_turn(rows)[:count])]
        encoded = dict(zip(facts, models.encode_prompts(self.tokenizer, facts), strict=True))
        encoded = {fact: ids for fact, ids in encoded.items() if len(ids) < self.longest}
        settings: dict[str, Any] = {"desc": "What follows", "tokens_per_batch": self.args.eval_tokens_per_batch}
        answers = models.whole_answers(self.model, self.tokenizer, list(encoded), **settings)
        return [
            models.EncodedPair((ids + answer.tokens)[: self.longest], len(ids))
            for (fact, ids), answer in zip(encoded.items(), answers, strict=True)
            if answer.tokens and not self.probes.overlaps(f"{fact} {answer.text}")
        ]

    def _in_turn(self, rows: Dataset) -> list[int]:
        """Places of rows at random, one of each edit before the second of any; none of facts that stay."""
        order = random.Random(self.args.seed).sample(range(len(rows)), len(rows))
        if not {"kind", "edit_id"} <= {*rows.column_names}:  # rows of the user
            return order
        table = rows.select_columns(["kind", "edit_id"]).to_pandas().iloc[order]
        table = table[table["kind"] != "locality"]
        return table.groupby("edit_id").cumcount().sort_values(kind="stable").index.tolist()

    def texts(self, count: int) -> list[models.EncodedPair]:
        """At most `count` parts of the given texts, or of those that the model says; none about an edited subject."""
        texts, length = self.training_texts, min(self.longest, LENGTH)
        if not texts:
            # Of the whole vocabulary: learning the likeliest tokens alone would make the model surer than it was.
            # Those of something edited are not drawn again: a small model may speak of little else.
            settings: dict[str, Any] = {"length": length - 1, "count": count, "top_k": 0, "seed": self.args.seed}
            texts = models.sample_prefixes(self.model, self.tokenizer, **settings)
        texts = list(filter(self._is_unrelated, texts))
        parts = [part for windows in models.encode_texts(self.tokenizer, texts, length) for part in windows]
        if self.training_texts and not parts:
            raise EditError("training_texts holds no text that is long enough and of nothing edited; give other ones")
        return random.Random(self.args.seed).sample(parts, min(len(parts), count))

    def _is_unrelated(self, text: str) -> bool:
        return not self.probes.overlaps(text) and not any(mentions(text, subject) for subject in self.subjects)
