"""Edit facts in causal language models by standard fine-tuning (Gangadhar & Stratos 2024, arXiv 2402.11078)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AugmentationOptions": "options",
    "Augmenter": "augmentation",
    "CompletionOnlyCollator": "collator",
    "EditConfig": "config",
    "EditDatasetBuilder": "dataset",
    "EditError": "records",
    "EditModelConfig": "config",
    "EditOptions": "options",
    "EditRecord": "records",
    "EditTrainer": "trainer",
    "Fact": "records",
    "compare": "scoring",
    "diagnose": "diagnosis",
    "load_edited_model": "published",
    "load_model": "loading",
    "load_tokenizer": "loading",
    "measure": "evaluation",
    "merge": "composition",
    "open_edits": "published",
    "predict": "evaluation",
    "push_dataset": "hub",
    "push_folder": "hub",
    "read_edits": "readers",
    "read_facts": "readers",
    "score": "scoring",
    "score_pairs": "likelihood",
    "verify": "verification",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from hf_ftedit.augmentation import Augmenter as Augmenter
    from hf_ftedit.collator import CompletionOnlyCollator as CompletionOnlyCollator
    from hf_ftedit.composition import merge as merge
    from hf_ftedit.config import EditConfig as EditConfig
    from hf_ftedit.config import EditModelConfig as EditModelConfig
    from hf_ftedit.dataset import EditDatasetBuilder as EditDatasetBuilder
    from hf_ftedit.diagnosis import diagnose as diagnose
    from hf_ftedit.evaluation import measure as measure
    from hf_ftedit.evaluation import predict as predict
    from hf_ftedit.hub import push_dataset as push_dataset
    from hf_ftedit.hub import push_folder as push_folder
    from hf_ftedit.likelihood import score_pairs as score_pairs
    from hf_ftedit.loading import load_model as load_model
    from hf_ftedit.loading import load_tokenizer as load_tokenizer
    from hf_ftedit.options import AugmentationOptions as AugmentationOptions
    from hf_ftedit.options import EditOptions as EditOptions
    from hf_ftedit.published import load_edited_model as load_edited_model
    from hf_ftedit.published import open_edits as open_edits
    from hf_ftedit.readers import read_edits as read_edits
    from hf_ftedit.readers import read_facts as read_facts
    from hf_ftedit.records import EditError as EditError
    from hf_ftedit.records import EditRecord as EditRecord
    from hf_ftedit.records import Fact as Fact
    from hf_ftedit.scoring import compare as compare
    from hf_ftedit.scoring import score as score
    from hf_ftedit.trainer import EditTrainer as EditTrainer
    from hf_ftedit.verification import verify as verify


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used: `import hf_ftedit` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
