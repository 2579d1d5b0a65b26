"""The error about a user's input, and how values and the errors of libraries are shown in it: on one line."""

import re
import reprlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_ftedit.text import masked, visible

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
NO_MEMORY = (
    "the memory does not suffice; lower --per_device_train_batch_size or --eval_tokens_per_batch, load the model in 4 "
    "bits (--load_in_4bit) or in bfloat16 (--dtype bfloat16), or use a machine with more memory"
)
_NO_MEMORY = re.compile(
    "out of memory|not enough memory|can(no|')t allocate memory|unable to allocate|ALLOC_FAILED", re.IGNORECASE
)


# What is called from this package, and may be installed anywhere; and where else libraries are.
_LIBRARIES = ("hf_ftedit", "accelerate", "datasets", "peft", "torch", "transformers", "trl")
_INSTALLED = re.compile(r"[/\\](?:site-packages|dist-packages|transformers_modules)[/\\]")


class EditError(ValueError):
    """What is wrong with a user's input, in one line: the place, the edit, the field, the value and a remedy."""

    def __init__(self, message: str) -> None:
        # Names and values in it may be a stranger's, and reach a terminal.
        super().__init__(" ".join(visible(masked(message)).splitlines()))


@contextmanager
def refusals_of_libraries(
    remedy: str = "change that setting, or leave it out", when: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Raise what libraries say of a user's settings as an [`EditError`] with a remedy, if `when` holds then."""
    try:
        yield
    except EditError:
        raise
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError, AssertionError, OSError, re.error) as error:
        is_missing = isinstance(error, FileNotFoundError) and error.filename  # a file that a setting names
        is_of_system = getattr(error, "errno", None) and not is_missing
        if is_out_of_memory(error) or is_of_system or _is_users(error) or not when():
            raise
        problem = f"{first_line(error)} is not known" if isinstance(error, KeyError) else one_line(error)[:500]
        raise EditError(f"{problem}; {remedy}") from error


def _is_users(error: BaseException) -> bool:
    """Tell an error in code of the user's, such as a callback, that a library called, or that called a library."""
    roots = {Path(sys.modules[name].__file__ or "").parent for name in _LIBRARIES if name in sys.modules}
    places = (*map(str, roots), *sysconfig.get_paths().values(), "<")
    called = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    # The first frames are of this context and of what is in it.
    return any(not (file.startswith(places) or _INSTALLED.search(file)) for file in called[2:])


def shown(value: object) -> str:
    """`value` for an error message: on one line, and cut where it is long."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python writes out no number of thousands of digits
        return "a number of thousands of digits"


def first_line(error: BaseException) -> str:
    """The first line of what `error` says that is not blank; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """All that `error` says, with a space for each run of white space; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error of too little memory, of Python, the system, PyTorch or CUDA."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))
