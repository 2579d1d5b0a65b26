"""Edits of different adapters that contradict each other: they are named, and no merge decides between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from hf_ftedit.data import EditRecord, fact_keys, folded
from hf_ftedit.errors import EditError, shown
from hf_ftedit.text import counted


class Conflict(NamedTuple):
    """Two edits, each with the name of its adapter, that cannot both hold."""

    first: str
    edit: EditRecord
    second: str
    other: EditRecord

    def __str__(self) -> str:
        ours = f"{shown(self.edit.prompt)} is {shown(self.edit.target_new)} in {self.first} ({self.edit.edit_id})"
        return f"{ours} and {shown(self.other.target_new)} in {self.second} ({self.other.edit_id})"


def conflicts(parts: Mapping[str, Sequence[EditRecord]]) -> list[Conflict]:
    """Edits of different adapters that give one prompt, or one subject and relation, different targets."""
    first_with: dict[Any, tuple[str, EditRecord]] = {}
    pairs: dict[tuple[str, str, str, str], Conflict] = {}
    for name, edits in parts.items():
        for edit in edits:
            for key in fact_keys(edit):
                first, other = first_with.setdefault(key, (name, edit))
                if first != name and folded(other.target_new) != folded(edit.target_new):
                    # Two edits may share their prompt and their relation: that is still one conflict.
                    pairs.setdefault((first, other.edit_id, name, edit.edit_id), Conflict(first, other, name, edit))
    return list(pairs.values())


def check_conflicts(parts: Mapping[str, Sequence[EditRecord]]) -> None:
    """Raise [`~hf_ftedit.EditError`] where edits of two adapters conflict; they are named as the user did."""
    if not (clashes := conflicts(parts)):
        return
    first, more = clashes[0], len(clashes) - 1
    others = f" ({counted(more, 'more such conflict')})" if more else ""
    folder, download = first.second, ""
    if "/" in folder and not Path(folder).is_dir():  # an adapter of the Hub
        folder = folder.rpartition("/")[2]
        download = f"hf download {first.second} edits.jsonl --local-dir {folder} && "
    # No option decides this: leaving an edit out of the list leaves it in the weights. Only training takes it out.
    raise EditError(
        f"edits conflict: {first}{others}; train them together instead: "
        f"{download}hf-ftedit train --adapter {quote(first.first)} --edits {quote(f'{folder}/edits.jsonl')} "
        f"--output_dir both, after removing {first.other.edit_id} there, or with --revoke {quote(first.edit.edit_id)}"
    )
