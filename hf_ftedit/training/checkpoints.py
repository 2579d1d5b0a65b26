"""Checkpoint folders: which one can be gone on from, which run it is of, and how one is written whole."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_ftedit.data import EditRecord, read_edits
from hf_ftedit.errors import EditError
from hf_ftedit.files import moving_prefix, require_empty, try_writing
from hf_ftedit.hub import ADAPTER_FILES, EDITS_FILE, read_recipe
from hf_ftedit.options import PROVENANCE

RUN_FILE = "edit_run.json"  # which run a checkpoint is of
STATE_FILE = "trainer_state.json"
ASIDE = ".unfinished-checkpoint"  # folder in which a checkpoint is written, until it is whole
_NAME = re.compile(r"checkpoint-(\d+)")
# What `Trainer` needs to go on exactly, as one device, FSDP and DeepSpeed write it.
_NEEDED = {
    "adapter_model.safetensors or model.safetensors": r"(adapter_)?model.*\.safetensors|pytorch_model_fsdp.*",
    STATE_FILE: re.escape(STATE_FILE),
    "optimizer.pt": r"optimizer.*",
    "scheduler.pt": r"scheduler\.pt",
    "rng_state.pth": r"rng_state(_\d+)?\.pth",
}
_SHARDED = re.compile(r"global_step\d+")  # DeepSpeed's folder with weights, optimizer and scheduler
_MARK = "checkpoint-is-incomplete.txt"  # of transformers' own checkpoints on SIGTERM


def checkpoints_of(folder: str | Path) -> list[Path]:
    """The checkpoint folders in `folder`, complete or not, in the order of their steps."""
    path = Path(folder)
    found = [item for item in path.iterdir() if _NAME.fullmatch(item.name)] if path.is_dir() else []
    return sorted((item for item in found if item.is_dir()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint folder is named after."""
    return int(checkpoint.name.partition("-")[2])


def problem_of(checkpoint: str | Path) -> str | None:
    """
    Why training cannot go on from a checkpoint folder; `None` where it can.

    Looks at the ends and the heads of files, not at all they hold: a file that was cut off is found at any size.

    Args:
        checkpoint (`str` or `Path`):
            The folder, written by this package or by a stock `Trainer`.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return "there is no such folder"
    names = {item.name for item in folder.iterdir()}
    if _MARK in names:
        return "it is marked as incomplete"
    if not any(_SHARDED.fullmatch(name) for name in names):
        for file, pattern in _NEEDED.items():
            if not any(re.fullmatch(pattern, name) for name in names):
                return f"{file} is missing"
    return f"{damaged} is cut off or damaged" if (damaged := damaged_file(folder)) else None


def damaged_file(folder: Path) -> str | None:
    """The first file of a checkpoint folder that is cut off or damaged."""
    return next((item.name for item in sorted(folder.iterdir()) if item.is_file() and not _is_whole(item)), None)


def newest_checkpoint(folder: str | Path) -> tuple[Path | None, dict[str, str]]:
    """
    The newest checkpoint that training can go on from, and why each newer one was passed over.

    Args:
        folder (`str` or `Path`):
            The `output_dir` of the run.
    """
    passed: dict[str, str] = {}
    for checkpoint in reversed(checkpoints_of(folder)):
        problem = problem_of(checkpoint)
        if problem is None:
            return checkpoint, passed
        passed[str(checkpoint)] = problem
    return None, passed


def check_checkpoint(checkpoint: str | Path) -> None:
    """Raise [`~hf_ftedit.EditError`] where training cannot go on from the folder `checkpoint`."""
    if problem := problem_of(checkpoint):
        raise EditError(
            f"resume_from_checkpoint {str(checkpoint)!r}: {problem}; give a complete checkpoint folder, or the flag "
            "alone to go on from the newest complete one in output_dir"
        )


def require_place(folder: str | Path, resume: bool | str | None) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where `train` cannot write to `folder`, or cannot go on with what is there.

    Args:
        folder (`str` or `Path`):
            The `output_dir`.
        resume (`bool` or `str`, *optional*):
            The option `resume_from_checkpoint`.
    """
    if isinstance(resume, str):
        check_checkpoint(resume)
    if not resume and checkpoints_of(folder) and not is_finished(folder):
        raise EditError(
            f"output_dir {str(folder)!r} holds checkpoints of a run that was stopped; add --resume_from_checkpoint to "
            "go on with it, or remove the folder"
        )
    path = Path(folder)
    names = [item.name for item in path.iterdir()] if path.is_dir() else []
    if not resume:
        return require_empty(folder)
    foreign = [name for name in names if not _is_ours(name, path)]
    if path.is_file() or (foreign and not checkpoints_of(path)):
        holds = f"holds {min(foreign)!r}, but no checkpoint to go on from" if foreign else "is a file"
        raise EditError(f"output_dir {str(folder)!r} {holds}; give another --output_dir or remove it")
    return try_writing(folder)


def is_finished(folder: str | Path) -> bool:
    """Whether the run that wrote to `folder` came to its end: the edited model is there with all its files."""
    path = Path(folder)
    try:
        files = read_recipe(path, path.name)[PROVENANCE]["files"]
    except (EditError, OSError):
        return False
    return bool(files) and all((path / name).is_file() for name in files)


def check_finished_with(folder: str | Path, edits: list[EditRecord], settings: Mapping[str, Any]) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where a finished folder is of another run.

    Args:
        folder (`str` or `Path`):
            The `output_dir`.
        edits (`list[EditRecord]`):
            The edits of this run, without those of an adapter that it goes on from.
        settings (`Mapping`):
            Its settings by name; one that is `None` follows the model or the hardware.
    """
    recipe = read_recipe(Path(folder), str(folder))
    there = {(edit.prompt, edit.target_new): edit.edit_id for edit in read_edits(Path(folder) / EDITS_FILE)}
    here = {(edit.prompt, edit.target_new): edit.edit_id for edit in edits}
    others = [here[key] for key in here.keys() - there.keys()]
    if not settings.get("adapter"):
        others += [there[key] for key in there.keys() - here.keys()]
    different = [f"{min(others)!r} is in one of them only"] if others else []
    for name, now in settings.items():
        if now is not None and name in recipe and recipe[name] != now:
            different.append(f"{name} was {recipe[name]!r}, and is {now!r} here")
    if different:
        what = "edits" if others else "settings"
        raise EditError(
            f"output_dir {str(folder)!r} holds the finished run of other {what}: {different[0]}; "
            "give another --output_dir"
        )


@contextmanager
def written_aside(folder: Path, *, is_main: bool) -> Iterator[Path]:
    """
    A folder in which a checkpoint of `folder` is written; [`move_in`] brings it to its place.

    A block that fails leaves nothing of it.

    Args:
        folder (`Path`):
            The `output_dir`.
        is_main (`bool`):
            Whether this process is the one that tidies up.
    """
    try:
        yield folder / ASIDE
    finally:
        if is_main:
            shutil.rmtree(folder / ASIDE, ignore_errors=True)


def move_in(folder: Path, name: str, remedy: str) -> None:
    """Bring the checkpoint `name`, written aside and whole, to its place; one that is there already goes."""
    if damaged := damaged_file(folder / ASIDE / name):
        raise EditError(f"{folder / name} cannot be written ({damaged} came out cut off); {remedy}")
    if (folder / name).exists():
        (folder / name).rename(folder / ASIDE / "replaced")
    (folder / ASIDE / name).rename(folder / name)


def rotate(folder: Path, limit: int | None, newest: Path, best: str | None) -> None:
    """
    Remove the oldest checkpoints beyond `limit`, never the newest or the best one.

    Those of later steps than the newest go first: they are of a run that was gone back behind.

    Args:
        folder (`Path`):
            The `output_dir`.
        limit (`int`, *optional*):
            The option `save_total_limit`.
        newest (`Path`):
            The checkpoint just written.
        best (`str`, *optional*):
            The best one so far.
    """
    kept = {newest.absolute(), Path(best).absolute()} if best else {newest.absolute()}
    others = [item for item in checkpoints_of(folder) if item.absolute() not in kept]
    others.sort(key=lambda item: (step_of(item) < step_of(newest), step_of(item)))
    surplus = len(others) + len(kept) - max(limit or 0, len(kept)) if limit and limit > 0 else 0
    for item in others[: max(0, surplus)]:
        # Aside first: a kill in the midst of removing must not leave half a checkpoint under its name.
        (folder / ASIDE).mkdir(exist_ok=True)
        gone = item.rename(folder / ASIDE / item.name)
        shutil.rmtree(gone, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed process left half-written: of checkpoints, and of the finished folder, in it or beside."""
    path = Path(folder).absolute()
    shutil.rmtree(path / ASIDE, ignore_errors=True)
    for place in (path, path.parent):
        for item in place.iterdir() if place.is_dir() else ():
            if _is_moved_in(item.name, path) and item.is_dir():
                shutil.rmtree(item, ignore_errors=True)


def check_run(checkpoint: Path, run: Mapping[str, Any]) -> bool:
    """
    Compare what a checkpoint tells of its run with this one; whether it tells anything.

    Args:
        checkpoint (`Path`):
            The folder.
        run (`Mapping`):
            What decides the weights: settings by name, and hashes of rows and base model.

    Raises:
        [`~hf_ftedit.EditError`]: it is of another run.
    """
    file = checkpoint / RUN_FILE
    if not file.is_file():
        return False
    told = json.loads(file.read_text(encoding="utf-8"))
    run = json.loads(json.dumps(run))  # as it would be read
    for name in sorted({*told, *run}):
        then, now = told.get(name), run.get(name)
        if then != now and not (name in HASHES and None in (then, now)):
            what = HASHES.get(name) or f"{name} was {then!r}, and is {now!r} here"
            raise EditError(
                f"checkpoint {str(checkpoint)!r} was made with other settings: {what}; resume with the original "
                "command, or give another --output_dir"
            )
    return True


HASHES = {"rows": "its training rows are others", "base_fingerprint": "its base model has other weights"}


def _is_whole(file: Path) -> bool:
    try:
        if file.name.endswith(".index.json"):
            shards = json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()
            return all((file.parent / shard).is_file() for shard in shards)
        if file.suffix == ".json":
            return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
        if file.suffix in (".pt", ".pth", ".bin"):
            with zipfile.ZipFile(file) as archive:  # its directory stands at the end
                return bool(archive.namelist())
        return _safetensors_end(file) == file.stat().st_size if file.suffix == ".safetensors" else True
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return False


def _safetensors_end(file: Path) -> int:
    """How long a safetensors file is by its header."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > 100_000_000:  # more than safetensors allows
            raise ValueError("no header")
        header = json.loads(opened.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)


def _is_ours(name: str, folder: Path) -> bool:
    """Whether a run that was stopped can have left this in its `output_dir`."""
    return (
        name in (*ADAPTER_FILES, ASIDE, "runs")
        or _NAME.fullmatch(name) is not None
        or _is_moved_in(name, folder)
        or name.endswith((".safetensors", ".json", ".jinja", ".model"))  # of a whole model
    )


def _is_moved_in(name: str, folder: Path) -> bool:
    """Whether it is a temporary folder of `files.moved_in` for `folder`."""
    return re.fullmatch(rf"{re.escape(moving_prefix(folder))}[a-z0-9_]{{8}}", name) is not None
