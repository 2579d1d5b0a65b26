"""What a long evaluation has found so far, on disk, so that a run that was stopped goes on from there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from hf_ftedit.errors import EditError
from hf_ftedit.models import whole_tensor


class Journal:
    """
    A JSONL file of findings: `{"key": ..., "value": ...}` a line, written as they are made.

    Each process of a run writes a file of its own and reads those of all. A line that a kill left half-written is
    dropped.

    Args:
        path (`str` or `Path`):
            The file, such as `scores/unfinished/after.jsonl`; each process puts its rank before the suffix.
        fingerprint (`str`):
            What the findings are of, see [`fingerprint`].
        rank (`int`, *optional*, defaults to `0`):
            The process.

    Raises:
        [`~hf_ftedit.EditError`]: the file holds findings of another model or of other settings.
    """

    def __init__(self, path: str | Path, fingerprint: str, rank: int = 0) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.found: dict[Any, Any] = {}
        ours = re.compile(rf"{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
        for part in sorted(path.parent.iterdir()):
            if ours.fullmatch(part.name):
                self._read(part, fingerprint)
        own = path.with_suffix(f".{rank}{path.suffix}")
        is_new = not _cut_torn_line(own)
        self._file = open(own, "a", encoding="utf-8", newline="\n")
        if is_new:
            self._write([{"fingerprint": fingerprint}])

    def add(self, findings: Iterable[tuple[Any, Any]]) -> None:
        """Keep (key, value) pairs: keys are text or tuples of text, values what JSON holds."""
        findings = list(findings)
        self.found.update(findings)
        self._write([{"key": key, "value": value} for key, value in findings])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._file.flush()

    def _read(self, path: Path, fingerprint: str) -> None:
        lines = path.read_bytes().split(b"\n")[:-1]  # behind the last line break is nothing, or a torn line
        try:
            head, *rows = [json.loads(line) for line in lines] or [{"fingerprint": fingerprint}]
            told = head["fingerprint"]
            pairs = [(tuple(row["key"]) if isinstance(row["key"], list) else row["key"], row["value"]) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise EditError(f"{path} is damaged ({error}); remove it, and measure again") from error
        if told != fingerprint:
            raise EditError(f"{path} is of another model or of other settings; remove it, or resume with the same")
        self.found.update(pairs)


def fingerprint(model: Any, **settings: Any) -> str:
    """
    A hash that tells models and settings apart: names, shapes and some elements of every parameter, not all of them.

    Args:
        model (`PreTrainedModel` or [`~peft.PeftModel`]):
            The model.
        settings:
            What else the findings depend on; of plain types.
    """
    # PEFT's `disable_adapter` sets this on every layer that has an adapter.
    off = sorted(name for name, module in model.named_modules() if getattr(module, "disable_adapters", False))
    found = xxhash.xxh3_128(json.dumps([settings, off], sort_keys=True).encode())
    for name, parameter in model.named_parameters():
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        flat = whole_tensor(parameter).detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 64)].clone()  # FSDP cannot free what numpy has a view of
        found.update(some.to("cpu").float().numpy().tobytes())
    return found.hexdigest()


def _cut_torn_line(path: Path) -> bool:
    """Cut what stands behind the last line break; whether anything is left."""
    if not path.exists():
        return False
    with open(path, "rb+") as file:
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        os.fsync(file.fileno())
    return end > 0
