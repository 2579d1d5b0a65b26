"""What the command line prints: by which process, and without the user's folder in it."""

from __future__ import annotations

import os
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
