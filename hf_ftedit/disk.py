"""Full disks, folders that may not be written to, and other troubles of a file system, told in one line."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_ftedit.errors import EditError

TROUBLES = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENAMETOOLONG")
_CODES = {getattr(errno, name) for name in TROUBLES if hasattr(errno, name)}
# PyTorch tells only that its archive came out too short, in words of its own.
_TORCH = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos|iostream error|file write failed")
_RUST = re.compile(r"os error (\d+)")


@contextmanager
def disk_errors(what: str, remedy: str = "free some space, or give another --output_dir") -> Iterator[None]:
    """
    Tell what goes wrong on the disk while the block writes `what`, such as a folder, and what to do.

    Args:
        what (`str`):
            What is written.
        remedy (`str`, *optional*):
            What the user can do.

    Raises:
        [`~hf_ftedit.EditError`]: the disk is full, may not be written to, or fails; other errors pass.
    """
    try:
        yield
    except EditError:
        raise
    except Exception as error:
        if reason := disk_trouble(error):
            raise EditError(f"{what} cannot be written ({reason}); {remedy}") from error
        raise


def disk_trouble(error: BaseException) -> str | None:
    """What the file system refused, of an error or of those that led to it; `None` where it is none of its."""
    seen: BaseException | None = error
    while seen is not None:
        if reason := _reason(seen):
            return reason
        # Libraries raise errors of their own behind one of the disk, and do not always say so.
        seen = seen.__cause__ or (seen.__context__ if isinstance(seen, (OSError, RuntimeError)) else None)
    return None


def require_writable(folder: str | Path) -> None:
    """Raise [`~hf_ftedit.EditError`] where `folder`, or what it would be made in, takes no files."""
    path = Path(folder)
    nearest = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK) and _takes_files(nearest)):
        raise EditError(
            f"output_dir {str(folder)!r}: cannot write to {nearest}; give another one, or mend its permissions"
        )


def _takes_files(folder: Path) -> bool:
    """By trying: `os.access` says yes to root, whatever the file system says."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _reason(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno in _CODES:
        return os.strerror(error.errno)
    if type(error).__name__ == "SafetensorError" and (found := _RUST.search(text)):
        return os.strerror(int(found[1]))
    if isinstance(error, RuntimeError) and _TORCH.search(text):
        return "a file did not take all that was written to it; is the disk full?"
    return "the disk is full" if isinstance(error, OSError) and "Not enough disk space" in text else None
