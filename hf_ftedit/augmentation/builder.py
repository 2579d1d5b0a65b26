"""`EditDatasetBuilder`: augmented training rows and the probes of an edit set as a `datasets` dataset."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from datasets.fingerprint import Hasher

import hf_ftedit.augmentation.augmenter
import hf_ftedit.augmentation.leakage
import hf_ftedit.augmentation.locality_pool
from hf_ftedit.augmentation.augmenter import Augmenter, TrainingRow
from hf_ftedit.data import EditRecord, Fact, read_edits, read_facts
from hf_ftedit.errors import EditError
from hf_ftedit.files import writing
from hf_ftedit.models import Processes, encode_pairs
from hf_ftedit.options import AugmentationOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_ftedit.options import EditOptions

FEATURES = datasets.Features({name: datasets.Value("string") for name in ("prompt", "completion", "kind", "edit_id")})
PROBE_SPLITS = ("rewrite", "paraphrase", "neighborhood", "portability")


@dataclass
class EditDatasetConfig(datasets.BuilderConfig):
    """
    What an edit dataset is made with.

    Args:
        seed (`int`, *optional*, defaults to `42`):
            Seed of the augmentation.
        options ([`AugmentationOptions`], *optional*):
            Strategies and counts.
        fingerprint (`str`, *optional*):
            Hash of the edits, the pool, the sampled prefixes, the options, the seed and the code that makes the rows:
            all that changes them, so that the cache never returns stale ones.
    """

    seed: int = 42
    options: AugmentationOptions = field(default_factory=AugmentationOptions)
    fingerprint: str = ""

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """Name of the cache folder: the configuration's name and the fingerprint."""
        return f"{self.name}-{self.fingerprint}"


class EditDatasetBuilder(datasets.GeneratorBasedBuilder):
    """
    Builds the augmented rows of an edit set, and its probes, as splits of one dataset.

    `train` holds the rows that [`Augmenter`] makes. `rewrite`, `paraphrase`, `neighborhood` and `portability` hold the
    probes, each with the completion that should follow it after the edit. All splits have the columns `prompt`,
    `completion` (with the space that separates it), `kind` and `edit_id`. Kinds without a probe make no split.

    Args:
        edits (`str`, `Dataset`, `Iterable[dict]` or `Iterable[EditRecord]`):
            The edits, in any known format; see [`~hf_ftedit.read_edits`].
        model (`PreTrainedModel`, *optional*):
            The unedited model, from which prefixes and own answers are drawn.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Its tokenizer.
        locality_pool (`str` or `Iterable[Fact]`, *optional*):
            Facts that must stay; see [`~hf_ftedit.read_facts`].
        options ([`AugmentationOptions`], *optional*):
            Strategies and counts.
        format (`str`, *optional*):
            Format of `edits`; recognised when not given.
        max_edits (`int`, *optional*):
            Use only the first so many edits.
        held_out (`Sequence[EditRecord]`, *optional*):
            Other records that will be measured: no row holds a probe of theirs either.
        revoked (`Sequence[EditRecord]`, *optional*):
            Edits that are taken back, see [`Augmenter`].
        chat_template (`bool`, *optional*, defaults to `False`):
            Whether the model is asked for its own answers through its chat template.
        seed (`int`, *optional*, defaults to `42`):
            Seed of the augmentation.
        cache_dir (`str`, *optional*):
            Where the Arrow files are kept; the `datasets` cache by default.

    Raises:
        [`~hf_ftedit.EditError`]: bad edits, pool or settings, named.

    Example:
    ```python
    builder = EditDatasetBuilder("edits.jsonl", model, tokenizer, locality_pool="facts.jsonl")
    builder.download_and_prepare(num_proc=4)
    push_dataset(builder.as_dataset(), "user/my-edits", builder.settings)  # with a card
    ```
    """

    BUILDER_CONFIG_CLASS = EditDatasetConfig
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
        self.records = read_edits(edits, format, max_edits)
        options = _augmentation_only(options)
        self._augmenter = Augmenter(
            self.records,
            options,
            pool=() if locality_pool is None else read_facts(locality_pool),
            model=model,
            tokenizer=tokenizer,
            held_out=held_out,
            revoked=revoked,
            chat_template=chat_template,
            seed=seed,
        )
        super().__init__(
            cache_dir=cache_dir,
            dataset_name="edit_dataset",
            config_name="edits",
            seed=seed,
            options=options,
            fingerprint=_fingerprint(self._augmenter),
            **kwargs,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the rows were made with."""
        return {**asdict(self.config.options), "seed": self.config.seed}

    def check_same(self) -> None:
        """
        Raise [`~hf_ftedit.EditError`] where the processes of `accelerate launch` have different rows.

        Every process must call this.
        """
        found = [""] * (processes := Processes()).count
        processes.gather([(processes.rank, self.config.fingerprint)], found)
        if len(set(found)) > 1:
            raise EditError(
                "the processes have different rows to train on; give every machine the same edits, locality pool, "
                "settings and versions"
            )

    def prepared(self, split: str, num_proc: int | None = None) -> datasets.Dataset:
        """The split `split`, made when it is not in the cache."""
        self.download_and_prepare(num_proc=num_proc)
        return self.as_dataset(split=split)

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Make the splits, as [`~datasets.DatasetBuilder`] does; a full disk is an `OSError` that names the cache."""
        with writing(Path(self._cache_dir_root)):
            super().download_and_prepare(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Training rows of factual edits and the probes that measure them, made by hf_ftedit.",
            features=FEATURES,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # A list is what `datasets` splits among the processes of `num_proc`.
        positions = list(range(len(self.records)))
        sizes = {kind: sum(1 for edit in self.records for _ in probe_rows(edit, kind)) for kind in PROBE_SPLITS}
        splits = []
        for name, size in {"train": self._augmenter.most_rows(), **sizes}.items():
            if size:  # `datasets` writes a split without rows, and then cannot read it
                split = datasets.SplitGenerator(name=name, gen_kwargs={"positions": positions, "split": name})
                split.split_info.num_examples = size  # by which its bar tells the time left
                splits.append(split)
        return splits

    def _generate_examples(self, positions: Sequence[int], split: str) -> Iterator[tuple[str, TrainingRow]]:
        for position in positions:
            train = split == "train"
            rows = self._augmenter.rows_of(position) if train else probe_rows(self.records[position], split)
            for number, row in enumerate(rows):
                yield f"{position}/{number}", row


def probe_rows(record: EditRecord, kind: str) -> Iterator[TrainingRow]:
    """The probes of one kind as prompt-completion rows; those without an answer in the data are left out."""
    pairs: dict[str, list[tuple[str, str | None]]] = {
        "rewrite": [(record.prompt, record.target_new)],
        "paraphrase": [(prompt, record.target_new) for prompt in record.paraphrase_prompts],
        "neighborhood": [(probe.prompt, probe.target) for probe in record.neighborhood_prompts],
        "portability": [(probe.prompt, probe.answers[0]) for probe in record.portability_prompts],
    }
    for prompt, target in pairs[kind]:
        if target is not None:
            yield {"prompt": prompt, "completion": f" {target}", "kind": kind, "edit_id": record.edit_id}


def is_prompt_completion(dataset: Any) -> bool:
    """Whether `dataset` holds plain prompt-completion rows: the kind whose target boundary this package decides."""
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        return False
    first: dict[str, Any] = next(iter(dataset), {})
    return "input_ids" not in first and all(isinstance(first.get(name), str) for name in ("prompt", "completion"))


def encode_rows(
    rows: Any,
    tokenizer: PreTrainedTokenizerBase,
    options: EditOptions,
    *,
    max_length: int | None = None,
    num_proc: int | None = None,
) -> Any:
    """
    Tokenized rows with the columns `input_ids`, `labels` (-100 outside the likelihood's tokens) and `length`.

    Args:
        rows (`Dataset` or `IterableDataset`):
            Rows with `prompt` and `completion`, and `edit_id` for naming them in errors.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the model.
        options ([`EditOptions`]):
            Its `objective` decides which tokens are labels; its `chat_template` how prompts are put.
        max_length (`int`, *optional*):
            Most tokens of a row.
        num_proc (`int`, *optional*):
            Processes to tokenize with.

    Raises:
        [`~hf_ftedit.EditError`]: a row is longer than `max_length`.
    """
    encode = _row_encoder(tokenizer, options.chat_template, options.objective == "full", max_length)
    if isinstance(rows, datasets.IterableDataset):
        return rows.map(encode, batched=True, remove_columns=list(next(iter(rows))))
    how = {"remove_columns": rows.column_names, "num_proc": num_proc, "desc": "Tokenizing rows"}
    with writing(Path(datasets.config.HF_DATASETS_CACHE)):
        return rows.map(encode, batched=True, **how)


def _row_encoder(
    tokenizer: PreTrainedTokenizerBase, chat_template: bool, full: bool, max_length: int | None
) -> Callable[[dict[str, list[str]]], dict[str, list[Any]]]:
    def encode(rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        names = [f"edit {edit_id!r}" for edit_id in rows["edit_id"]] if "edit_id" in rows else None
        pairs = encode_pairs(
            tokenizer,
            rows["prompt"],
            rows["completion"],
            chat_template=chat_template,
            max_length=max_length,
            names=names,
        )
        return {
            "input_ids": [pair.input_ids for pair in pairs],
            "labels": [pair.input_ids if full else pair.labels for pair in pairs],
            "length": [len(pair.input_ids) for pair in pairs],
        }

    return encode


def _augmentation_only(options: AugmentationOptions | None) -> AugmentationOptions:
    """The augmentation's part of `options`: what a trainer adds to them must not change the cache."""
    if options is None:
        return AugmentationOptions()
    return AugmentationOptions(**{name: getattr(options, name) for name in asdict(AugmentationOptions())})


def _fingerprint(augmenter: Augmenter) -> str:
    modules = (hf_ftedit.augmentation.augmenter, hf_ftedit.augmentation.leakage, hf_ftedit.augmentation.locality_pool)
    source = "".join(inspect.getsource(module) for module in modules) + inspect.getsource(probe_rows)
    return Hasher.hash([source, *augmenter.ingredients()])
