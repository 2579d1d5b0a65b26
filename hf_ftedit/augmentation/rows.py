"""Prompt-completion rows: of an edit's probes, and as the tokens that a model is trained on."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import mkstemp
from typing import Any, NotRequired, TypedDict
from weakref import finalize

import datasets
import pyarrow as pa
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError
from hf_ftedit.files import cached_map, writing
from hf_ftedit.models import History, encode_pairs
from hf_ftedit.scripts import separated

_TEXTS = ("prompt", "completion", "kind", "edit_id")
_HISTORY = pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content")]))
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("ends", pa.bool_()), ("history", _HISTORY)])


class TrainingRow(TypedDict):
    """One prompt-completion row; in a chat, `completion` is the answer to the user's `prompt`, or its beginning."""

    prompt: str
    completion: str
    kind: str  # rewrite, paraphrase, contrast (in a chat: near names and other subjects), locality, or a probe's
    edit_id: str
    # In a chat, and with `end_of_answer`: the end of turn or sequence follows the completion, and is learnt too.
    ends: NotRequired[bool]
    history: NotRequired[History]  # in a chat: the messages before the prompt


class RowFile:
    """The training rows of each edit, in a temporary file: of many edits they would fill the memory."""

    def __init__(self, rows_of_edits: Iterable[list[TrainingRow]]) -> None:
        digest, self.count = xxh3_128(), 0
        handle, self._path = mkstemp(prefix="hf_ftedit-", suffix=".arrow")
        finalize(self, Path(self._path).unlink, missing_ok=True)
        with writing(Path(self._path).parent), open(handle, "wb") as file, pa.ipc.new_file(file, _SCHEMA) as batches:
            for rows in rows_of_edits:
                batches.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
                digest.update(repr(rows).encode())
                self.count += len(rows)
        self.digest = digest.hexdigest()

    def __getitem__(self, index: int) -> list[TrainingRow]:
        # Opened anew: worker processes, to which this is pickled, have the path alone.
        with pa.memory_map(self._path) as file:
            rows: list[Any] = pa.ipc.open_file(file).get_batch(index).to_pylist()
        return rows


def training_row(record: EditRecord, kind: str, prompt: str, target: str) -> TrainingRow:
    """Make a row of `record`; a space that separates prompt and target belongs to the completion."""
    return {"prompt": prompt, "completion": separated(prompt, target), "kind": kind, "edit_id": record.edit_id}


def probe_rows(record: EditRecord, kind: str) -> Iterator[TrainingRow]:
    """Make rows of the probes of one kind; those without an answer in the data are left out."""
    # Of several right answers the first stands for all: a row has one completion.
    pairs: dict[str, list[tuple[str, str | None]]] = {
        "rewrite": [(record.prompt, record.target_new)],
        "paraphrase": [(prompt, record.target_new) for prompt in record.paraphrase_prompts],
        "neighborhood": [(probe.prompt, probe.target) for probe in record.neighborhood_prompts],
        "portability": [(probe.prompt, probe.answers[0]) for probe in record.portability_prompts],
    }
    return (training_row(record, kind, prompt, target) for prompt, target in pairs[kind] if target is not None)


def is_prompt_completion(dataset: Any) -> bool:
    """Does `dataset` hold plain prompt-completion rows, the kind whose target boundary this package decides?"""
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        return False
    first: dict[str, Any] = next(iter(dataset), {})
    return "input_ids" not in first and all(isinstance(first.get(name), str) for name in ("prompt", "completion"))


def encode_rows(
    rows: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat_template: bool = False,
    ends: bool = False,
    objective: str = "conditional",
    max_length: int | None = None,
    num_proc: int | None = None,
) -> Any:
    """
    Tokenize prompt-completion rows to `input_ids`, `labels` (-100 where nothing is learnt) and `length`.

    Rows may have a column `ends`: whether the end of the answer is learnt; without it, `ends` is for all of them. In a
    chat they may have a column `history`, the messages before the prompt, which a row goes without where it does not
    fit into `max_length`. With `chat_template` the column `kind` is kept, as the loss differs by it.
    """

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        # Rows that are too long are errors, named by their edit: cut, they would teach another answer.
        names = [f"edit {edit_id!r}" for edit_id in batch["edit_id"]] if "edit_id" in batch else None
        settings: dict[str, Any] = {"chat_template": chat_template, "names": names}
        settings["ends"] = batch.get("ends", [ends] * len(batch["prompt"]))
        pairs_of = partial(encode_pairs, tokenizer, batch["prompt"], batch["completion"], **settings)
        histories = [history or [] for history in batch.get("history", ())]
        if any(histories) and not chat_template:
            raise EditError("rows have a history, which only a chat has: set chat_template, or remove that column")
        pairs = pairs_of(histories=histories or None, max_length=None if any(histories) else max_length)
        if max_length and any(len(pair.input_ids) > max_length for pair in pairs):
            fitting = zip(histories, pairs, strict=True)
            histories = [history if len(pair.input_ids) <= max_length else [] for history, pair in fitting]
            pairs = pairs_of(histories=histories, max_length=max_length)
        ids = [pair.input_ids for pair in pairs]
        labels = ids if objective == "full" else [pair.labels for pair in pairs]
        return {"input_ids": ids, "labels": labels, "length": list(map(len, ids))}

    if isinstance(rows, datasets.IterableDataset):
        return rows.map(encode, batched=True, remove_columns=list(next(iter(rows))))
    unused = [name for name in rows.column_names if not (chat_template and name == "kind")]
    settings = {"remove_columns": unused, "num_proc": num_proc, "desc": "Tokenizing rows"}
    return cached_map(rows, encode, Path(datasets.config.HF_DATASETS_CACHE), batched=True, **settings)
