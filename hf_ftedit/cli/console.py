"""Standard output and error that stop no run, and what is printed: by the first process, without the home folder."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from hf_ftedit.files import claim, require_empty
from hf_ftedit.text import masked

# What tables are drawn with, for a terminal that knows no box characters.
PLAIN = str.maketrans({**dict.fromkeys("│┃", "|"), **dict.fromkeys("─━—", "-"), **dict.fromkeys("┏┓└┘├┤┡┩┬┴┳┼╇", "+")})


class Screen:
    """
    A standard stream that raises nothing, since results count and not who reads them, and that masks secrets.

    What an encoding lacks is written as an escape; `error` is what the system said when it took no more.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write `text`, or nothing where nobody takes it."""
        shown, encoding = masked(text), self._stream.encoding or "utf-8"
        try:
            shown.encode(encoding)
        except UnicodeEncodeError:
            shown = shown.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)
        with self._lasting():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._lasting():
            self._stream.flush()

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # or the stream is closed
            self.error = self.error or error
            with suppress(OSError, ValueError):  # no file of the system, such as a notebook's
                # What is buffered, and all that other libraries write, goes nowhere.
                number = self._stream.fileno()
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), number)


@contextmanager
def screens() -> Iterator[Screen]:
    """Context in which standard output, which it gives, and standard error are [`Screen`]s."""
    # One that was closed would be the next file that is opened, and get what libraries in C print.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    before = sys.stdout, sys.stderr
    out, err = (Screen(stream or open(os.devnull, "w")) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def is_first_process() -> bool:
    """Tell whether this is the first process of `accelerate launch`."""
    # By the launcher's variable rather than by accelerate's state, as torch may not be loaded.
    return os.environ.get("RANK", "0") == "0"


def claim_output(folder: str) -> None:
    """Hold the folder to write, in the first process: two runs into one folder would cost one of them its results."""
    if is_first_process():
        claim(folder)


def claim_empty(folder: str) -> None:
    """[`claim_output`] of a folder that must not exist with content."""
    require_empty(folder)
    claim_output(folder)


def without_home(text: str) -> str:
    """`text` with `~` for the home folder, since output is posted in issues."""
    home = os.path.expanduser("~")  # "~" where there is none, as in a container without users
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def written_to(folder: str, content: str) -> str:
    """The last line of a verb that wrote a folder."""
    return f"Written to {without_home(folder)}: {content}."


def hide_brief_bars(edits: int) -> None:
    """Hide progress bars of `datasets` that flash by, or that would fill a log file."""
    if edits < 1000 or not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
