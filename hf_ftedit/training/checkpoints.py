"""Checkpoint folders: which one training resumes from, of which run it is, what `output_dir` may hold. No torch."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from hf_ftedit.errors import EditError, is_out_of_memory, one_line
from hf_ftedit.files import moving_prefix, require_empty, try_writing
from hf_ftedit.hub import check_folder, read_recipe
from hf_ftedit.options import PROVENANCE

logger = logging.getLogger(__name__)

# The description of the run, and a checkpoint's last file: one that has it is complete. So nothing has to be written
# aside, renamed or examined for damage: what a kill leaves half-written lacks it.
RUN_FILE = "edit_run.json"
STATE_FILE = "trainer_state.json"
_HASHES = {"rows": "its training rows are others", "base_fingerprint": "its base model has other weights"}


def checkpoints_in(folder: str | Path) -> list[Path]:
    """Checkpoint folders, complete or not, in the order of their steps."""
    # `sort_checkpoints` of transformers would load torch, and the command line looks here before that.
    matches = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in Path(folder).glob("checkpoint-*/")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def is_complete(checkpoint: Path) -> bool:
    """True where a checkpoint was written to its end."""
    return (checkpoint / RUN_FILE).is_file()


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint in `folder`; `None` without one."""
    for checkpoint in reversed(checkpoints_in(folder)):
        if is_complete(checkpoint):
            return checkpoint
        logger.warning("%s is incomplete and skipped", checkpoint)
    return None


def check_checkpoint(checkpoint: str) -> Path:
    """The path of a checkpoint that is named; [`~hf_ftedit.EditError`] where it is none."""
    # By the state, not by our file: stock `Trainer` writes it last, and its checkpoints may be resumed from too.
    if (Path(checkpoint) / STATE_FILE).is_file():
        return Path(checkpoint)
    raise EditError(
        f"resume_from_checkpoint {checkpoint!r}: no {STATE_FILE} is there; give a complete checkpoint folder, or the "
        "flag alone to resume from the newest complete one in output_dir"
    )


@contextmanager
def reading(checkpoint: str | Path | None) -> Iterator[None]:
    """Context in which a checkpoint is read; what cannot be read is an [`~hf_ftedit.EditError`] that names it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, EditError) or is_out_of_memory(error):
            raise
        raise EditError(
            f"checkpoint {str(checkpoint)!r} is damaged ({one_line(error)[:200]}); remove it, and resume from an "
            "earlier one or begin again"
        ) from error


def mark_complete(checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Write the description of the run into a checkpoint that has all its other files."""
    partial = checkpoint / f"{RUN_FILE}.partial"
    partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, checkpoint / RUN_FILE)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; a kill on the way leaves none that looks complete."""
    (checkpoint / RUN_FILE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def date_of_run(args: Any) -> str | None:
    """The date that the prompts of a run tell which may be resumed with these arguments; `None` of a new one."""
    named = args.resume_from_checkpoint
    chosen = [Path(named)] if named and not isinstance(named, bool) else []
    checkpoints = [*chosen, *reversed(checkpoints_in(args.output_dir or "."))]
    last = next(filter(is_complete, checkpoints), None)
    with reading(last):
        return json.loads((last / RUN_FILE).read_text(encoding="utf-8")).get("chat_date") if last else None


def check_run(checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Raise where a checkpoint is of another run, by settings and hashes; log where it does not say of which it is."""
    if not is_complete(checkpoint):
        logger.warning("%s has no %s: it may be of other edits or settings", checkpoint, RUN_FILE)
        return
    saved = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
    run = json.loads(json.dumps(run))  # lists for tuples, as they are read
    # Settings first: where they differ, so do the rows.
    for name in sorted({*saved, *run}, key=lambda name: (name in _HASHES, name)):
        then, now = saved.get(name), run.get(name)
        if then != now and not (name in _HASHES and None in (then, now)):
            difference = _HASHES.get(name) or f"{name} was {then!r}, and is {now!r} now"
            raise EditError(
                f"checkpoint {str(checkpoint)!r} was made with other settings: {difference}; resume with the original "
                "command, or give another --output_dir"
            )


def check_output_dir(folder: str | Path, resume: bool | str | None) -> None:
    """Raise [`~hf_ftedit.EditError`] where `train` must not write to `folder`, or cannot resume from what is there."""
    if isinstance(resume, str):
        check_checkpoint(resume)
    path, checkpoints = Path(folder), checkpoints_in(folder)
    if checkpoints and not resume and not is_finished(folder):
        raise EditError(
            f"output_dir {str(folder)!r} holds checkpoints of a run that was stopped; add --resume_from_checkpoint to "
            "go on with it, or remove the folder"
        )
    if not resume or path.is_file():
        return require_empty(folder)
    ours = ("checkpoint-", "runs", moving_prefix(path))  # "runs" are TensorBoard's
    foreign = [item.name for item in path.glob("*") if not item.name.startswith(ours)]
    if foreign and not checkpoints and not is_finished(folder):
        raise EditError(
            f"output_dir {str(folder)!r} holds {min(foreign)!r}, but no checkpoint to resume from; give another "
            "--output_dir or remove it"
        )
    return try_writing(folder)


def check_own(folder: str | Path) -> None:
    """Raise [`~hf_ftedit.EditError`] where a finished adapter would replace a model that another program wrote."""
    # A kill while files were moved in leaves those of this run without a recipe, beside its checkpoints. Beside those
    # of stock `Trainer`, from which a run may go on, TRL writes a card.
    checkpoints = checkpoints_in(folder)
    if not any(map(is_complete, checkpoints)):
        check_folder(folder, with_card=not checkpoints)


def is_finished(folder: str | Path) -> bool:
    """True where a run came to its end: `folder` has all files that its `edit_config.yaml` lists."""
    path = Path(folder)
    try:
        files = read_recipe(path, path.name)[PROVENANCE]["files"]
    except (EditError, OSError):
        return False
    return bool(files) and all((path / name).is_file() for name in files)


def remove_leftovers(folder: str | Path) -> None:
    """Remove temporary folders that a kill left in the finished folder or beside it."""
    path = Path(folder).absolute()
    for place in (path, path.parent):
        for item in place.glob(f"{escape(moving_prefix(path))}????????"):
            shutil.rmtree(item, ignore_errors=True)
