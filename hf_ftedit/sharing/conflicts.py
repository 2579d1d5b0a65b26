"""Edits of different adapters that contradict each other: found, and decided in favour of one adapter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, shown

logger = logging.getLogger(__name__)


class Conflict(NamedTuple):
    """
    Two edits that cannot both hold.

    Args:
        first (`str`), second (`str`):
            The adapters.
        edit (`EditRecord`), other (`EditRecord`):
            Their edits.
    """

    first: str
    edit: EditRecord
    second: str
    other: EditRecord

    def __str__(self) -> str:
        ours = f"{shown(self.edit.prompt)} is {shown(self.edit.target_new)} in {self.first} ({self.edit.edit_id})"
        return f"{ours} and {shown(self.other.target_new)} in {self.second} ({self.other.edit_id})"


def conflicts(parts: Mapping[str, Sequence[EditRecord]]) -> list[Conflict]:
    """
    Edits of different adapters that give one prompt, or one subject and relation, different targets.

    Args:
        parts (`Mapping[str, Sequence[EditRecord]]`):
            Edits by adapter.
    """
    known: dict[Any, tuple[str, EditRecord]] = {}
    found: dict[tuple[str, str, str, str], Conflict] = {}
    for name, edits in parts.items():
        for edit in edits:
            for key in _keys(edit):
                first, other = known.setdefault(key, (name, edit))
                if first != name and _plain(other.target_new) != _plain(edit.target_new):
                    found.setdefault((first, other.edit_id, name, edit.edit_id), Conflict(first, other, name, edit))
    return list(found.values())


def decided(
    parts: Mapping[str, Sequence[EditRecord]], clashes: Sequence[Conflict], preferred: str | None
) -> dict[str, list[EditRecord]]:
    """
    The edits by adapter, without those that conflict with one of the preferred adapter; they are named in the log.

    Args:
        parts (`Mapping[str, Sequence[EditRecord]]`):
            Edits by adapter.
        clashes (`Sequence[Conflict]`):
            Their [`conflicts`].
        preferred (`str`, *optional*):
            The adapter whose edits win.

    Raises:
        [`~hf_ftedit.EditError`]: some of them are between other adapters.
    """
    open_clashes = [clash for clash in clashes if preferred not in (clash.first, clash.second)]
    if open_clashes:
        more = f" ({len(open_clashes) - 1} more such conflicts)" if len(open_clashes) > 1 else ""
        raise EditError(f"edits conflict: {open_clashes[0]}{more}; give --prefer with the adapter whose edits win")
    lost = {(clash.second, clash.other.edit_id) for clash in clashes if clash.first == preferred}
    lost |= {(clash.first, clash.edit.edit_id) for clash in clashes if clash.second == preferred}
    for name, edit_id in sorted(lost):
        logger.info("left out edit %s of %s: %s has another answer, and is preferred", shown(edit_id), name, preferred)
    return {name: [edit for edit in edits if (name, edit.edit_id) not in lost] for name, edits in parts.items()}


def _keys(edit: EditRecord) -> list[Any]:
    """What two edits share if they are about the same: the prompt, or the subject and the relation."""
    keys: list[Any] = [_plain(edit.prompt)]
    if edit.subject and edit.relation_id:
        keys.append((_plain(edit.subject), edit.relation_id))
    return keys


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
