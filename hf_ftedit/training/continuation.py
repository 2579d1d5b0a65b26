"""From one adapter to the next: its edits with new ones, or without some, and what became of the old ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hf_ftedit.data import EditRecord, read_edits
from hf_ftedit.errors import EditError, shown
from hf_ftedit.evaluation import NAMES, bootstrap, interval, means, score
from hf_ftedit.hub import SavedEdits
from hf_ftedit.models import public_name

logger = logging.getLogger(__name__)


class Continued(NamedTuple):
    """
    What is trained after an adapter.

    Args:
        name (`str`):
            The adapter, as others may know it.
        folder ([`SavedEdits`]):
            What it says of itself.
        edits (`list[EditRecord]`):
            Edits to train: its own first, then new ones.
        earlier (`list[str]`):
            Names of those of its own that stay.
        revoked (`list[EditRecord]`):
            Those of its own that are taken back.
    """

    name: str
    folder: SavedEdits
    edits: list[EditRecord]
    earlier: list[str]
    revoked: list[EditRecord]


def continued(name: str, folder: SavedEdits, new: Sequence[EditRecord] = (), revoke: Sequence[str] = ()) -> Continued:
    """
    The edits of an adapter, without some and with new ones; a new edit of the same prompt takes an old one's place.

    Args:
        name (`str`):
            The adapter: folder or Hub id.
        folder ([`SavedEdits`]):
            What it says of itself.
        new (`Sequence[EditRecord]`, *optional*):
            Edits to add.
        revoke (`Sequence[str]`, *optional*):
            Names of its edits to take back.

    Raises:
        [`~hf_ftedit.EditError`]: it has no such edit, nothing is to be done, or nothing is left.
    """
    public, known = public_name(name), {edit.edit_id for edit in folder.records}
    if not new and not revoke:
        raise EditError(f"adapter {public!r}: give edits to add, or revoke the names of some of its own")
    if unknown := [edit_id for edit_id in revoke if edit_id not in known]:
        some = ", ".join(shown(edit.edit_id) for edit in folder.records[:3])
        raise EditError(f"adapter {public!r} has no edit {shown(unknown[0])} to revoke; it has {some}, ...")
    revoked = [edit for edit in folder.records if edit.edit_id in set(revoke)]
    kept = _without_replaced([edit for edit in folder.records if edit.edit_id not in set(revoke)], new)
    edits = united([kept, new], [public, "new"])
    if not edits:
        raise EditError(f"adapter {public!r}: all its edits are revoked; use the base model without it")
    return Continued(public, folder, edits, [edit.edit_id for edit in kept], revoked)


def united(parts: Sequence[Sequence[EditRecord]], names: Sequence[str]) -> list[EditRecord]:
    """
    All edits of the parts; one that stands twice is merged, and of two of one name the later gets its part's too.

    Args:
        parts (`Sequence[Sequence[EditRecord]]`):
            Edits, no two of which give one prompt different targets.
        names (`Sequence[str]`):
            What the parts are called.
    """
    prompts: dict[str, str] = {}  # by edit_id
    found = []
    for name, part in zip(names, parts, strict=True):
        for edit in part:
            if prompts.setdefault(edit.edit_id, edit.prompt) != edit.prompt:
                edit = replace(edit, edit_id=f"{name}:{edit.edit_id}")
            found.append(edit)
    return read_edits(found) if found else []


def scores_of(predictions: Mapping[str, Sequence[Any]], edit_ids: Iterable[str], protocol: str) -> dict[str, Any]:
    """Scores of some of the edits that were measured; see [`~hf_ftedit.score`]."""
    wanted = set(edit_ids)
    rows = [row for row, edit_id in enumerate(predictions["edit_id"]) if edit_id in wanted]
    return score({name: [column[row] for row in rows] for name, column in predictions.items()}, protocol)


def retention(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> dict[str, Any]:
    """
    What became of an adapter's edits when training went on from it, as `eval_results.json` holds it.

    Args:
        before (`Mapping`):
            Their scores with the adapter as it was.
        after (`Mapping`):
            Their scores now.
        name (`str`):
            The adapter.
    """
    kept = [key for score in ("edit_score", *NAMES.values()) for key in (score, f"{score}_ci95")]
    both = {when: {key: found[key] for key in kept} for when, found in (("before", before), ("after", after))}
    return {"adapter": name, "n_edits": after["n_edits"], **both}


def revocation(said: Sequence[Sequence[bool]], efficacy: float | None, name: str) -> dict[str, Any]:
    """
    Whether revoked facts are back, as `eval_results.json` holds it.

    Args:
        said (`Sequence[Sequence[bool]]`):
            For each revoked edit, whether each of its prompts and paraphrases is answered as the base model does.
        efficacy (`float`, *optional*):
            Their efficacy now, in percent.
        name (`str`):
            The adapter that they were taken from.

    Returns:
        `dict`: `back` is the mean over each edit's prompts, then over the edits, in percent, with `back_ci95`.
    """
    values = np.array([[100 * np.mean(answers)] for answers in said])
    (back,), (ends,) = means(values), interval(bootstrap(values, lambda mean: mean, 1000, 0))
    counts = {"n_edits": len(said), "n_probes": sum(map(len, said))}
    return {"adapter": name, **counts, "back": float(back), "back_ci95": ends, "efficacy": efficacy}


def _without_replaced(kept: list[EditRecord], new: Sequence[EditRecord]) -> list[EditRecord]:
    """Edits that no new one contradicts; the others are named in the log."""
    wanted = {edit.prompt: edit.target_new for edit in new}
    replaced = [edit for edit in kept if wanted.get(edit.prompt, edit.target_new) != edit.target_new]
    if replaced:
        names = ", ".join(shown(edit.edit_id) for edit in replaced[:3])
        logger.warning("%d earlier edits are replaced by new ones of the same prompt: %s", len(replaced), names)
    return [edit for edit in kept if edit not in replaced]
