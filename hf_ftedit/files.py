"""Folders and files that are written whole or not at all, and the errors of a file system that refuses them."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_ftedit.errors import EditError

try:
    import fcntl
except ImportError:  # on Windows, where no folder is locked
    fcntl = None  # type: ignore[assignment]

# Errors that a user mends, not a programmer: no space, no permission, a broken disk. A missing file is not among them.
_REFUSALS = {"ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENAMETOOLONG", "ENOTDIR", "EEXIST"}
_REFUSALS |= {"ELOOP", "EMFILE", "ENFILE", "ESTALE", "EBUSY", "ENODEV", "ENXIO", "EOPNOTSUPP"}
claims = ExitStack()  # of this process; left where a verb ends
_made: set[Path] = set()  # claimed folders that were not there before


_TRIAL = ".hf_ftedit-trial-"  # begins a folder in which some process tries to write


def require_empty(folder: str | Path) -> None:
    """Raise [`~hf_ftedit.EditError`] where `folder` has content, and `OSError` where it cannot be written to."""
    path = Path(folder)
    if path.is_file():
        raise EditError(f"output_dir {str(folder)!r} is a file; give a folder")
    if path.is_dir() and any(not inner.name.startswith(_TRIAL) for inner in path.iterdir()):
        raise EditError(f"output_dir {str(folder)!r} exists and is not empty; give another --output_dir or remove it")
    try_writing(path)


def try_writing(folder: str | Path, size: int = 0) -> None:
    """Raise the `OSError` that making `folder`, where it is missing, and writing `size` bytes to it meets."""
    path = Path(folder).absolute()
    nearest = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not nearest.exists():
        problem = f"{nearest.name!r} is a link to nothing"
        raise EditError(f"output_dir {str(folder)!r}: {problem}; give another --output_dir")
    try:
        # By trying, not by `os.access`: that says yes to root, whatever the file system says. With the names that are
        # to be made, in a folder of nobody: they may be too long.
        with tempfile.TemporaryDirectory(dir=nearest, prefix=_TRIAL) as place:
            made = Path(place) / path.relative_to(nearest)
            made.mkdir(parents=True, exist_ok=True)
            (made / "file").write_bytes(bytes(size))
    except FileNotFoundError as error:  # a file system of the kernel's, such as /proc
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder)) from error
    except OSError as error:
        error.filename = str(folder)  # not the temporary file, of which nobody knows
        raise


def claim(folder: str | Path) -> None:
    """Hold `folder` as [`holding`] does, until the [`claims`] of this process end."""
    claims.enter_context(holding(folder))


@contextmanager
def holding(folder: str | Path) -> Iterator[None]:
    """Hold `folder`, made where it is missing, within the context; [`~hf_ftedit.EditError`] where another run does."""
    path = Path(folder).absolute()
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or give another --output_dir"
            raise EditError(f"output_dir {str(folder)!r}: another run writes to it; {remedy}") from error
        except OSError:
            pass  # a file system without locks
        _made.update(missing[:1])
        try:
            yield
        finally:
            _made.difference_update(missing)
            for each in missing:
                with suppress(OSError):  # something was written
                    each.rmdir()
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context for writes to `folder`: the `OSError` of a file system that refuses them names the folder."""
    try:
        yield
    except Exception as error:
        if refusal := refusal_behind(error):
            refusal.filename = str(folder)
        else:
            # PyTorch, safetensors and datasets hide a full disk behind errors and wordings of their own, which
            # change: the file system itself says whether it still takes a megabyte.
            try_writing(folder, 2**20)
        raise


def cached_map(rows: Any, function: Callable[..., Any], folder: Path, **settings: Any) -> Any:
    """The rows of `rows.map(function)` by the cache in `folder`, or made anew where what it holds is damaged."""
    with writing(folder):
        try:
            return rows.map(function, **settings)
        except (OSError, SystemError, ValueError) as error:  # of pyarrow
            if isinstance(error, EditError) or refusal_behind(error):
                raise
            return rows.map(function, **settings, load_from_cache_file=False)


def refusal_behind(error: BaseException) -> OSError | None:
    """The refusal of the file system that led to `error`: no space, no permission; `None` where there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and errno.errorcode.get(cause.errno or 0) in _REFUSALS:
            return cause
        # Without a name it is the working folder, or no folder takes temporary files.
        if isinstance(cause, FileNotFoundError) and cause.errno and cause.filename is None:
            return cause
        # A `KeyError` while a refusal was handled is a fault of ours, whose traceback must be seen.
        cause = cause.__cause__ or (cause.__context__ if isinstance(cause, (OSError, RuntimeError)) else None)
    return None


@contextmanager
def moved_in(folder: Path, replaced: Collection[str] = ()) -> Iterator[Path]:
    """Context with a temporary folder whose files move to `folder`, where those `replaced` go, if it ends well."""
    folder = folder.absolute()
    if folder.is_file():
        raise EditError(f"{str(folder)!r} is a file; give a folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Inside a folder that was there: its parent may be another file system, or not ours to write to.
    place = folder if folder.is_dir() and folder not in _made else folder.parent
    new = Path(tempfile.mkdtemp(prefix=moving_prefix(folder), dir=place))
    try:
        with writing(folder):
            yield new
            _open_to_others(new)
            if not folder.exists() or (folder in _made and not any(folder.iterdir())):
                new.rename(folder)
                return
            files = {file.relative_to(new).as_posix(): file for file in sorted(new.rglob("*")) if file.is_file()}
            for name in set(replaced) - set(files):
                (folder / name).unlink(missing_ok=True)
            for name, file in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(file, folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def moving_prefix(folder: Path) -> str:
    """The beginning of the name of the temporary folder of `folder`; eight characters follow."""
    name = folder.absolute().name.encode(errors="ignore")[:200].decode(errors="ignore")  # 255 bytes at most are one
    return f".hf_ftedit-{name}-"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with the same line ends on every system: files are compared by their SHA-256."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, by [`write_text`]."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _open_to_others(folder: Path) -> None:
    """Give what was made private, as temporary files are, the usual permissions."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
