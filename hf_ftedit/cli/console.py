"""What the command line prints: by which process, and without the user's folder in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_first_process() -> bool:
    """Whether this is the first process of `accelerate launch`, as the launcher says: torch may not be loaded."""
    return os.environ.get("RANK", "0") == "0"


def without_home(text: str) -> str:
    """`text` with `~` for the user's folder: what is printed may be posted."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def written_to(folder: str, what: str) -> str:
    """The sentence that tells where `what` now is."""
    return f"Written to {without_home(folder)}: {what}."


def hide_brief_bars(edits: int) -> None:
    """Hide progress bars of `datasets` that flash by, or that would fill a log file."""
    if edits < 1000 or not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
