"""The adapters that are to become one: opened by name, and checked to be of one base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hf_ftedit.data import EditRecord
from hf_ftedit.errors import EditError, shown
from hf_ftedit.hub import SavedEdits, base_of, fetch_adapter, open_edits
from hf_ftedit.models import public_name


class Part(NamedTuple):
    """
    One adapter to merge.

    Args:
        name (`str`):
            What it is called: its Hub id, or its folder's own name.
        folder ([`SavedEdits`]):
            What it says of itself.
        revision (`str`, *optional*):
            Its commit, where it is from the Hub.
        edits (`list[EditRecord]`):
            Those of its edits that count.
        weight (`float`):
            How much it counts.
    """

    name: str
    folder: SavedEdits
    revision: str | None
    edits: list[EditRecord]
    weight: float


def opened(names: Sequence[str], weights: Sequence[float] | None, fewest: int) -> list[Part]:
    """
    The adapters of these names, with all their edits.

    Args:
        names (`Sequence[str]`):
            Hub ids or folders.
        weights (`Sequence[float]`, *optional*):
            How much each one counts; 1 by default.
        fewest (`int`):
            How many there must be.

    Raises:
        [`~hf_ftedit.EditError`]: there are fewer, not as many weights, or one is no adapter with its edits.
    """
    if len(names) < fewest:
        raise EditError(f"merge got {len(names)} adapters and needs {fewest} or more; name their folders or Hub ids")
    if weights is not None and len(weights) != len(names):
        raise EditError(f"weights are {len(weights)} and the adapters {len(names)}; give one weight for each")
    found: list[Part] = []
    for name, weight in zip(names, weights or [1.0] * len(names), strict=True):
        folder = open_edits(name)
        fetch_adapter(name)
        public = public_name(name)
        while public in [part.name for part in found]:  # folders of one name in different places
            public += "'"
        revision = None if Path(name).is_dir() else folder.path.name
        found.append(Part(public, folder, revision, folder.records, weight))
    return found


def common_base(parts: Sequence[Part], base_model: str | None) -> tuple[str, str | None]:
    """
    Name and commit of the base model of all parts, as it is to be loaded.

    Args:
        parts (`Sequence[Part]`):
            The adapters.
        base_model (`str`, *optional*):
            Another name of it; see [`~hf_ftedit.hub.load.base_of`].

    Raises:
        [`~hf_ftedit.EditError`]: the parts differ in it.
    """
    first, *others = parts
    for name in ("model_name_or_path", "model_revision", "chat_template"):
        ours = first.folder.recipe.get(name)
        for other in others:
            if (theirs := other.folder.recipe.get(name)) != ours:
                raise EditError(
                    f"{shown(first.name)} and {shown(other.name)} differ in {name} ({shown(ours)} and "
                    f"{shown(theirs)}); only adapters of one base model can be merged"
                )
    return base_of(first.folder.path, first.folder, base_model)
