"""The files of words and texts from which rows are made."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from hf_ftedit.models import asset


@lru_cache
def bank(name: str) -> Any:
    """A YAML file that the package brings."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    return yaml.load(Path(asset(name)).read_text(encoding="utf-8"), loader)
