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
    """Find the `count` texts nearest to each query by cosine similarity; their indices, nearest first."""
    # As Gangadhar & Stratos 2024 (arXiv 2402.11078) choose the locality facts of single edits.
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.util import semantic_search
    except ImportError as error:
        raise EditError("locality_strategy 'similar' needs an extra: pip install 'hf-ftedit[similar]'") from error
    try:
        model = SentenceTransformer(model_name)
    except (OSError, ValueError) as error:
        raise EditError(f"similar_model {model_name!r} cannot be loaded: {first_line(error)}") from error
    # Under `accelerate launch` every process must come here: each embeds its share.
    processes = Processes()
    shows_bar = processes.is_main and sys.stderr.isatty()
    vectors: list[Any] = processes.each_once(
        [*queries, *texts], lambda share: list(model.encode(share, show_progress_bar=shows_bar))
    )
    ours, pool = (torch.tensor(np.array(part)) for part in (vectors[: len(queries)], vectors[len(queries) :]))
    neighbors = semantic_search(ours, pool, top_k=min(count, len(texts)))
    return [[int(hit["corpus_id"]) for hit in hits] for hits in neighbors]
