"""`EditDatasetBuilder`: augmented training rows and the probes of an edit set as a `datasets` dataset."""

import inspect
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
from datasets.fingerprint import Hasher
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_ftedit.augmentation.augmenter import Augmenter
from hf_ftedit.augmentation.chat import ChatAugmenter
from hf_ftedit.augmentation.erasure import with_erasures
from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.locality_pool import FactPool
from hf_ftedit.augmentation.rows import probe_rows
from hf_ftedit.data import WORD, EditRecord, Fact, read_edits, read_facts
from hf_ftedit.errors import EditError
from hf_ftedit.files import writing
from hf_ftedit.models import Processes
from hf_ftedit.options import AugmentationOptions, check_value
from hf_ftedit.scripts import separated

FEATURES = datasets.Features({name: datasets.Value("string") for name in ("prompt", "completion", "kind", "edit_id")})
HISTORY = datasets.List({name: datasets.Value("string") for name in ("role", "content")})
PROBE_SPLITS = ("rewrite", "paraphrase", "neighborhood", "portability")


class EditDatasetBuilder(datasets.GeneratorBasedBuilder):
    """
    Build the augmented rows of an edit set, and its probes, as splits of one dataset.

    `train` holds the rows that [`Augmenter`] makes. `rewrite`, `paraphrase`, `neighborhood` and `portability` hold the
    probes, each with the completion that should follow it after the edit. All splits have the columns `prompt`,
    `completion` (with the space that separates it), `kind` and `edit_id`. Kinds without a probe make no split.

    Args:
        edits (`str`, `Dataset`, `Iterable[dict]` or `Iterable[EditRecord]`): The edits, in any known format; see
            [`~hf_ftedit.read_edits`].
        model (`PreTrainedModel`, *optional*): The unedited model, from which prefixes and own answers are drawn.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Its tokenizer.
        locality_pool (`str` or `Iterable[Fact]`, *optional*): Facts that must stay; see [`~hf_ftedit.read_facts`].
        options ([`AugmentationOptions`], *optional*): Strategies and counts.
        format (`str`, *optional*): Format of `edits`; recognised when not given.
        max_edits (`int`, *optional*): Use only the first so many edits.
        held_out (`Sequence[EditRecord]`, *optional*): Other records that will be measured: no row holds a probe of
            theirs either.
        revoked (`Sequence[EditRecord]`, *optional*): Edits that are taken back: the unedited model's answers to their
            prompts and other wordings are rehearsed.
        chat_template (`bool`, *optional*, defaults to `False`): Make rows for a chat model, see [`ChatAugmenter`];
            they have the columns `ends`, whether the end of turn is learnt, and `history`, the messages before the
            prompt. Of a base model, rows have `ends` with the option `end_of_answer`.
        seed (`int`, *optional*, defaults to `42`): Seed of the augmentation.
        cache_dir (`str`, *optional*): Folder of the Arrow files; the `datasets` cache by default.

    Raises:
        [`~hf_ftedit.EditError`]: bad edits, pool or settings, named.

    Example:
    ```python
    builder = EditDatasetBuilder("edits.jsonl", model, tokenizer, locality_pool="facts.jsonl")
    builder.download_and_prepare(num_proc=4)
    push_dataset(builder.as_dataset(), "user/my-edits", builder.settings)  # with a card
    ```
    """

    VERSION = datasets.Version("1.0.0")

    def __init__(
        self,
        edits: Any,
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        locality_pool: str | Iterable[Fact] | None = None,
        options: AugmentationOptions | None = None,
        format: str | None = None,
        max_edits: int | None = None,
        held_out: Sequence[EditRecord] = (),
        revoked: Sequence[EditRecord] = (),
        chat_template: bool = False,
        seed: int = 42,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        seed, max_edits = check_value("seed", seed, int), check_value("max_edits", max_edits, int | None)
        if not isinstance(options, AugmentationOptions | None):
            raise EditError(f"options is of type {type(options).__name__}: give AugmentationOptions or EditOptions")
        records = read_edits(edits, format, max_edits)
        self.records = with_erasures(records, model, tokenizer, chat_template=chat_template)
        # Its own part of a trainer's settings: the others must not change the cache.
        names = asdict(AugmentationOptions()) if options else {}
        options = AugmentationOptions(**{name: getattr(options, name) for name in names})
        more = {"ends": datasets.Value("bool")} if chat_template or options.end_of_answer else {}
        more |= {"history": HISTORY} if chat_template else {}
        self._is_chat, self._features = chat_template, datasets.Features(FEATURES | more)
        # Both take the same; without a model, each says itself what it needs one for.
        augmenter = ChatAugmenter if chat_template else Augmenter
        parts: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "held_out": held_out, "revoked": revoked}
        parts["pool"] = () if locality_pool is None else read_facts(locality_pool)
        self._augmenter = augmenter(self.records, options, seed=seed, **parts)
        kwargs |= {"cache_dir": cache_dir, "dataset_name": "edit_dataset", "config_name": "edits"}
        # The name of the cache folder: by the hash of all that changes the rows and the probes.
        edits = [*self.records, *held_out, *revoked]
        kwargs |= {"config_id": f"edits-{_fingerprint(edits, self._augmenter)}"}
        try:
            super().__init__(**kwargs)
        except (AttributeError, ValueError):  # what is in the cache is damaged
            shutil.rmtree(self._cache_dir)
            super().__init__(**kwargs)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the rows were made with."""
        chat = {"chat_template": True} if self._is_chat else {}
        return {**asdict(self._augmenter.options), **chat, "seed": self._augmenter.seed}

    def check_same(self) -> None:
        """Raise [`~hf_ftedit.EditError`] where the processes of `accelerate launch` differ; each of them calls it."""
        processes = Processes()
        fingerprints = processes.each_once(range(processes.count), lambda _: [self.config_id])
        if len(set(fingerprints)) > 1:
            raise EditError(
                "the processes have different rows to train on; give every machine the same edits, locality pool, "
                "settings and versions"
            )

    def prepared(self, split: str, num_proc: int | None = None) -> datasets.Dataset:
        """The split `split`, made when it is not in the cache."""
        self.download_and_prepare(num_proc=num_proc)
        return self.as_dataset(split=split)

    def as_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """The splits, as [`~datasets.DatasetBuilder`] reads them; made anew where what the cache holds is damaged."""
        try:
            return super().as_dataset(*args, **kwargs)
        except (AttributeError, OSError, SystemError, TypeError, ValueError):
            self.download_and_prepare(download_mode="force_redownload")
            return super().as_dataset(*args, **kwargs)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Make the splits, as [`~datasets.DatasetBuilder`] does; a full disk is an `OSError` that names the cache."""
        with writing(Path(self._cache_dir_root)):
            super().download_and_prepare(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self._features)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # A list, not a range: that is what `datasets` splits among the processes of `num_proc`.
        positions = list(range(len(self.records)))
        sizes = {kind: sum(1 for edit in self.records for _ in probe_rows(edit, kind)) for kind in PROBE_SPLITS}
        splits = []
        for name, size in {"train": self._augmenter.most_rows(), **sizes}.items():
            if size:  # `datasets` writes a split without rows, and then cannot read it
                split = datasets.SplitGenerator(name=name, gen_kwargs={"positions": positions, "split": name})
                # For the time left in the progress bar alone: of training rows it is an upper bound.
                split.split_info.num_examples = size
                splits.append(split)
        return splits

    def _generate_examples(self, positions: Sequence[int], split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        more = {"ends": self._is_chat or split in ("rewrite", "paraphrase"), "history": []}
        for position in positions:
            is_train = split == "train"
            rows = self._augmenter.rows_of(position) if is_train else probe_rows(self.records[position], split)
            for number, row in enumerate(rows):
                yield f"{position}/{number}", {name: {**more, **row}[name] for name in self._features}


def _fingerprint(edits: Sequence[EditRecord], augmenter: Augmenter) -> str:
    """Hash the edits, what else rows are made of, and the code that makes them: all that changes the splits."""
    # `datasets` knows a cache by its configuration alone, and would return the rows of an older version of the code.
    parts = (Augmenter, ProbeTexts, FactPool, probe_rows, EditRecord, separated)
    source = "".join(inspect.getsource(module) for module in map(inspect.getmodule, parts) if module)
    return Hasher.hash([source, WORD.pattern, [edit.to_dict() for edit in edits], *augmenter.ingredients()])
