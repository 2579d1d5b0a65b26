"""Files, datasets and iterables to rows, each with its place for errors, or to plain texts."""

import csv
import functools
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from hf_ftedit.data.fields import is_blank, kind, plain
from hf_ftedit.errors import EditError, first_line, shown

Located: TypeAlias = tuple[str, Any]
Source: TypeAlias = str | os.PathLike[str] | Iterable[Any]

_DATASET_ID = re.compile(r"[\w.-]+/[\w.-]+(:[^/:\s]+)?")
_EXAMPLE = '{"prompt": "The capital of Kazakhstan is", "target_new": "Astana"}'
# Endings of columns whose cells in a table may be JSON lists: only those, as "[b]" may be somebody's target.
_LISTS = (
    *("_prompts", "requested_rewrite", "locality", "portability", "questions", "answers", "ground_truth", "_alias"),
    *("_aliases", "_texts", "single_hops", "wordings", "rephrase", "rephrase_prompt", "locality_prompt", "loc"),
)


def read_rows(source: Source) -> Iterator[Located]:
    """Read the rows of any source of [`~hf_ftedit.read_edits`], each with its place: `("edits.jsonl line 7", row)`."""
    if isinstance(source, str | os.PathLike):
        path = os.path.expanduser(source)
        name = os.path.basename(path)
        rows = _hub_rows(path) if is_hub_dataset(path) else _file_rows(path, name)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        name, rows = "the source", _python_rows(source)
    else:
        what = f"an object with the keys {shown(list(source))}" if isinstance(source, Mapping) else kind(source)
        raise EditError(f"the source is {what}; give a file, a Hub dataset id, a dataset's split, or a list of rows")
    # Before anything is yielded: a source without rows is a mistake, never an empty list of edits.
    first = next(rows, None)
    if first is None:
        raise EditError(f"{name} holds no rows; give at least one such as {_EXAMPLE}")
    yield from itertools.chain([first], rows)


def read_texts(source: Source) -> list[str]:
    """Read an iterable of texts, or rows with a column `text` (in any case) or with one column of text only."""
    if isinstance(source, Sequence) and not len(source):
        raise EditError("there are no texts; give at least one")
    return [_text(row, where) for where, row in read_rows(source)]


def read_named(name: str, read: Callable[[Any], list[Any]], source: Any) -> list[Any]:
    """What `read` makes of the source that an argument or option names, which its errors then name; `[]` of none."""
    try:
        return [] if source is None else read(source)
    except EditError as error:
        raise EditError(f"{name}: {error}") from error


def is_hub_dataset(source: Any) -> bool:
    """Is `source` the id of a Hub dataset, `"user/name"` or `"user/name:split"`, rather than a file?"""
    if not isinstance(source, str) or os.path.exists(source):
        return False
    return _suffix(source) not in READERS and _DATASET_ID.fullmatch(source) is not None


def _suffix(path: str) -> str:
    return os.path.splitext(path.lower().removesuffix(".gz"))[1]


def _text(row: Any, where: str) -> str:
    if isinstance(row, Mapping):
        texts = [value for value in row.values() if isinstance(value, str)]
        named = [value for name, value in row.items() if str(name).lower() == "text"] or texts
        row = named[0] if len(named) == 1 else None
    if not isinstance(row, str) or not row.strip():
        raise EditError(f"{where}: holds no text; give it in a column named text")
    return row


def _python_rows(source: Iterable[Any]) -> Iterator[Located]:
    """The rows of a dataset, a DataFrame or any iterable, as they would be in a file."""
    is_table = hasattr(source, "columns") or hasattr(source, "column_names")
    if hasattr(source, "with_format"):  # of a dataset: as Python's values, whatever it gives else
        source = source.with_format(None)
    elif hasattr(source, "itertuples"):  # a DataFrame of pandas, which would give the names of its columns
        source = source.to_dict("records")  # type: ignore[attr-defined]
    rows = _numbered(map(plain, source))
    return _without_json_cells(rows) if is_table else rows


def _file_rows(path: str, name: str) -> Iterator[Located]:
    suffix = _suffix(path)
    if os.path.isdir(path):
        raise EditError(f"{path}: is a directory; give a file in it ({', '.join(READERS)})")
    if not os.path.exists(path):
        raise EditError(f"{shown(path)}: no such file; check the path, or give a Hub dataset id such as 'user/name'")
    if suffix not in READERS:
        raise EditError(f"{name}: the suffix {suffix!r} is not known; use one of {', '.join(READERS)}")
    try:
        yield from READERS[suffix](path, name)
    except (OSError, EOFError, zlib.error) as error:
        raise EditError(f"{name}: cannot be read: {first_line(error)}; check the file and its permissions") from error


def _numbered(rows: Iterable[Any], name: str = "") -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        yield f"{name} row {number}".strip(), row


# Read as a whole, unlike the other kinds: `json` parses no streams.
def _json_rows(path: str, name: str) -> Iterator[Located]:
    text = "".join(_lines(path, name))
    rows = _parsed(text, name, "if it has one object a line, name it .jsonl") if text.strip() else []
    if not isinstance(rows, list):
        lists = [key for key, value in rows.items() if isinstance(value, list)] if isinstance(rows, dict) else []
        level = kind(rows) + (f" whose list stands under {shown(lists[0])}" if len(lists) == 1 else "")
        raise EditError(f"{name}: the top level is {level}; make it a list of rows such as [{_EXAMPLE}]")
    yield from _numbered(rows, name)


def _jsonl_rows(path: str, name: str) -> Iterator[Located]:
    for number, line in enumerate(_lines(path, name), start=1):
        where = f"{name} line {number}"
        if line.strip():
            remedy = "give one JSON object a line; if it is one JSON list, name it .json"
            yield where, _parsed(line.rstrip(), where, remedy)


def _csv_rows(path: str, name: str) -> Iterator[Located]:
    numbered = enumerate(_lines(path, name))
    # Excel may write which sign it puts between cells.
    skipped, first = next((pair for pair in numbered if pair[1].strip() and not pair[1].startswith("sep=")), (0, ""))
    lines = (line for _, line in numbered)
    # Spreadsheets write semicolons where a comma is the decimal sign. No column of any format holds one of the three.
    mark = max(",;\t", key=first.count)
    # `strict`, as otherwise a quote that is never closed swallows the rest of the file silently.
    reader = csv.DictReader(itertools.chain([first], lines), delimiter=mark, strict=True, skipinitialspace=True)
    try:
        reader.fieldnames = header = [column_name(column) for column in reader.fieldnames or ()]
        named = [column for column in header if column]  # spreadsheets write a comma for each cell that was ever used
        if len(set(named)) < len(named):
            raise EditError(f"{name} line {skipped + 1}: the header names a column twice: {shown(named)}; rename one")
        for row in reader:
            where = f"{name} line {skipped + reader.line_num}"
            # Under None, `csv` puts the cells that have no column.
            if None in row:
                sign = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[mark]
                raise EditError(f"{where}: has more cells than the header; put text that has {sign} in double quotes")
            yield from _without_json_cells([(where, row)])
    except csv.Error as error:
        line = skipped + reader.reader.line_num
        raise EditError(f"{name} line {line}: is not valid CSV ({error}); check its quotes") from error


def _parquet_rows(path: str, name: str) -> Iterator[Located]:
    # Heavy, and needed for one of four suffixes.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Batch by batch: as Python objects, all rows of a large file at once take many times its size.
        rows = (row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist())
        yield from _without_json_cells(_numbered(rows, name))
    except pa.ArrowException as error:
        raise EditError(f"{name}: is not valid Parquet ({first_line(error)}); write it again") from error


def _hub_rows(dataset_id: str) -> Iterator[Located]:
    import datasets

    path, _, split = dataset_id.partition(":")
    try:
        rows = datasets.load_dataset(path, split=split or "train")
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        problem = f"no such file, and no Hub dataset that loads: {first_line(error)}"
        raise EditError(f"{dataset_id}: {problem}; check the id, and give a split as 'user/name:split'") from error
    return _without_json_cells(_numbered(rows, dataset_id))


def _lines(path: str, name: str) -> Iterator[str]:
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                # Spreadsheets put a byte order mark in front, which no JSON reader takes.
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"byte 0x{line[error.start]:02x} at position {error.start}"
                raise EditError(f"{name} line {number}: is not UTF-8 ({place}); save the file as UTF-8") from error


# By suffix; all but the last one also with .gz. Not by `datasets.load_dataset`: it names no line in its errors, and
# infers one schema for rows of several kinds.
READERS = {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a name that stands twice would lose its first value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = shown(next(name for name in names if names.count(name) > 1))
        raise ValueError(f"{twice} stands twice in an object; keep one of the two")
    return values


def _parsed(text: str, where: str, remedy: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise EditError(f"{where}: is not valid JSON ({error.msg} at {place}); {remedy}") from error
    # Of lists in lists, and of numbers of thousands of digits, which Python does not read.
    except (RecursionError, ValueError) as error:
        raise EditError(f"{where}: is not usable JSON: {first_line(error)}") from error


def _without_json_cells(rows: Iterable[Located]) -> Iterator[Located]:
    """Read the cells of a table: blanks are null, and lists may be JSON text."""
    for where, row in rows:
        if isinstance(row, Mapping):
            columns = [(column_name(name), value) for name, value in row.items()]
            if len(dict(columns)) < len(columns):
                raise EditError(f"{where}: two columns of {shown(list(row))} have one name; rename one")
            row = {name: _cell(value, name, where) for name, value in columns}
            if all(value is None for value in row.values()):
                continue  # spreadsheets write rows that nobody filled in, too
        yield where, row


@functools.cache
def column_name(name: Any) -> str:
    """The name of a table's column as fields are written: "Target new" is target_new."""
    return "_".join(str(name).lower().split())


def _cell(value: Any, column: str, where: str) -> Any:
    if is_blank(value):
        return None
    if isinstance(value, str) and column.endswith(_LISTS) and value.lstrip().startswith(("[", "{")):
        return _parsed(value, f"{where} column {shown(column)}", 'write lists as JSON: ["one", "two"]')
    return value
