"""Nearest texts by sentence embedding, for locality facts similar to an edit (optional extra `similar`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hf_ftedit.errors import EditError, first_line
from hf_ftedit.models import Processes


def nearest(queries: Sequence[str], texts: Sequence[str], count: int, model_name: str) -> list[list[int]]:
    """
    Indices of the `count` texts nearest to each query by cosine similarity, nearest first.

    Gangadhar & Stratos 2024 (arXiv 2402.11078) choose locality facts of single edits this way. Under
    `accelerate launch` every process must call this, and embeds its share.

    Args:
        queries (`Sequence[str]`):
            Prompts of the edits.
        texts (`Sequence[str]`):
            Prompts of the pool.
        count (`int`):
            How many for each query; fewer when there are fewer texts.
        model_name (`str`):
            Sentence-transformers model, by Hub id or folder.

    Raises:
        [`~hf_ftedit.EditError`]: sentence-transformers is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.util import semantic_search
    except ImportError as error:
        raise EditError("locality_strategy 'similar' needs an extra: pip install 'hf-ftedit[similar]'") from error
    try:
        model = SentenceTransformer(model_name)
    except (OSError, ValueError) as error:
        raise EditError(f"similar_model {model_name!r} cannot be loaded: {first_line(error)}") from error
    processes = Processes()
    shows_bar = processes.is_main and sys.stderr.isatty()
    embedded: list[Any] = processes.each_once(
        [*queries, *texts], lambda mine: list(model.encode(mine, show_progress_bar=shows_bar))
    )
    wanted, known = (torch.tensor(np.array(part)) for part in (embedded[: len(queries)], embedded[len(queries) :]))
    hits = semantic_search(wanted, known, top_k=min(count, len(texts)))
    return [[int(hit["corpus_id"]) for hit in found] for found in hits]
