"""Printing: by the first process only, and without the user's home folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_first_process() -> bool:
    """Tell whether this is the first process of `accelerate launch`."""
    # By the launcher's variable rather than by accelerate's state, as torch may not be loaded.
    return os.environ.get("RANK", "0") == "0"


def without_home(text: str) -> str:
    """`text` with `~` for the home folder, since output is posted in issues."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def written_to(folder: str, content: str) -> str:
    """The last line of a verb that wrote a folder."""
    return f"Written to {without_home(folder)}: {content}."


def hide_brief_bars(edits: int) -> None:
    """Hide progress bars of `datasets` that flash by, or that would fill a log file."""
    if edits < 1000 or not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
