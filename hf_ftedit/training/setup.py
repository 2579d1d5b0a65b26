"""What a user hands to `EditTrainer` to what it trains on: edits are read and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets import Dataset
from transformers import TrainingArguments

from hf_ftedit.augmentation import EditDatasetBuilder, encode_rows, is_prompt_completion
from hf_ftedit.data import EditRecord, Fact, read_edits, read_facts
from hf_ftedit.errors import EditError
from hf_ftedit.evaluation import check_fluency, check_lengths, load_checked
from hf_ftedit.hub import base_of, check_base, fetch_adapter, open_edits
from hf_ftedit.models import context_length, in_turns, keep_gradients, load_adapter, load_tokenizer, unedited
from hf_ftedit.options import OUTPUT_FOLDER
from hf_ftedit.training.config import EditConfig
from hf_ftedit.training.continuation import Continued, continued
from hf_ftedit.training.lora import default_lora, fit_lora

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Prepared(NamedTuple):
    """
    A trainer's material.

    Args:
        model (`PreTrainedModel`):
            The model to edit.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        rows (`Dataset`):
            What is trained on: tokenized by this package where `is_ours`, else as it was given.
        eval_rows (`Dataset`, *optional*):
            Rows whose loss is evaluated, likewise.
        records (`list[EditRecord]`):
            Edits whose probes are measured.
        edits (`list[EditRecord]`):
            Edits that are trained, where they are known.
        is_ours (`bool`):
            Whether the rows are plain prompt-completion rows, whose target boundary this package decides.
        prior ([`~hf_ftedit.training.continuation.Continued`], *optional*):
            What is trained after the adapter `args.adapter`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: Any
    eval_rows: Any
    records: list[EditRecord]
    edits: list[EditRecord]
    is_ours: bool
    prior: Continued | None


def prepare(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    args: EditConfig,
    train_dataset: Any,
    eval_dataset: Any,
    locality_pool: str | Iterable[Fact] | None = None,
    quantization_config: Any = None,
) -> Prepared:
    """
    Read, check, load, augment and tokenize, in this order; see [`EditTrainer`] for the arguments.

    Raises:
        [`~hf_ftedit.EditError`]: bad edits or settings, named.
    """
    source: Any = args.edits if train_dataset is None else train_dataset
    if are_edits(source):
        source = read_edits(source, args.format, args.max_edits, skip_invalid=args.skip_invalid)
    prior = _prior(args, source)
    if prior:
        source = prior.edits
    measured = read_edits(eval_dataset, args.format) if are_edits(eval_dataset) else None
    if args.measure_fluency:
        check_fluency(measured or _records(source))
    if args.metric_for_best_model and (args.load_best_model_at_end or args.save_strategy == "best"):
        _check_best(args, measured or _records(source), measures_rows=eval_dataset is not None and not measured)
    pool = args.locality_pool if locality_pool is None else locality_pool
    facts = None if pool is None else read_facts(pool)
    asked = [*_records(source), *(measured or ()), *(prior.revoked if prior else ())]
    model, tokenizer = _loaded(model, tokenizer, args, asked, quantization_config, prior)
    keep_gradients(model)
    trained = _records(source)
    records = measured or trained
    if trained and not isinstance(source, EditDatasetBuilder):
        revoked = prior.revoked if prior else []
        source = _builder(trained, facts, args, model, tokenizer, measured or [], revoked)
    if isinstance(source, EditDatasetBuilder):
        source.check_same()
        rows = in_turns(lambda: source.prepared("train", args.dataset_num_proc))
    else:
        rows = source
    eval_rows = None if measured else eval_dataset
    is_ours = is_prompt_completion(rows)
    if is_ours:
        if args.packing or args.padding_free:
            raise EditError("packing and padding_free are not supported for edits; turn them off")
        rows = encoded(rows, args, tokenizer, model)
        eval_rows = encoded_parts(eval_rows, args, tokenizer, model)
    if records and eval_rows is None:
        eval_rows = rows.take(1)  # `Trainer` wants rows for `eval_strategy`; the records are measured instead
    return Prepared(model, tokenizer, rows, eval_rows, records, trained, is_ours, prior)


def encoded(rows: Any, args: EditConfig, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Any:
    """Prompt-completion rows as tokens; one longer than `args.max_length` or the model's context is an error."""
    limits = [limit for limit in (args.max_length, context_length(model.config)) if limit]
    how: dict[str, Any] = {"max_length": min(limits, default=None), "num_proc": args.dataset_num_proc}
    return in_turns(lambda: encode_rows(rows, tokenizer, args, **how))


def encoded_parts(rows: Any, *how: Any) -> Any:
    """Rows, or several named sets of them, as [`encoded`]; what is not prompt-completion stays as it is."""
    if isinstance(rows, dict):
        return {name: encoded_parts(part, *how) for name, part in rows.items()}
    return encoded(rows, *how) if is_prompt_completion(rows) else rows


def are_edits(source: Any) -> bool:
    """Whether `source` is edits rather than training rows: a path, a list, or a dataset of edit records."""
    if isinstance(source, Dataset):
        columns = set(source.column_names)
        return bool(columns & {"target_new", "requested_rewrite"}) or {"src", "alt"} <= columns
    return isinstance(source, (str, PathLike, Sequence))


def as_edit_config(args: TrainingArguments | None) -> EditConfig:
    """`args` as an [`EditConfig`]: settings of TRL or transformers are taken over, the edit's own are defaults."""
    if isinstance(args, EditConfig):
        return args
    if args is None:
        return EditConfig()
    known = {field.name for field in fields(EditConfig) if field.init}
    settings = {field.name: getattr(args, field.name) for field in fields(args) if field.name in known}
    return EditConfig(**settings)


def repo_name(args: EditConfig) -> str:
    """The repository to push to: `hub_model_id`, or the name of the folder that is written."""
    return args.hub_model_id or Path(args.output_dir or OUTPUT_FOLDER).absolute().name


def with_probes(trained: list[EditRecord], measured: list[EditRecord]) -> list[EditRecord]:
    """The trained edits, each with its probes as measured where it is; the measured ones where rows are trained."""
    probed = {(record.prompt, record.target_new): record for record in measured}
    pairs = ((edit, probed.get((edit.prompt, edit.target_new), edit)) for edit in trained)
    return [replace(record, edit_id=edit.edit_id) for edit, record in pairs] or measured


def adapter_for(model: PreTrainedModel, args: EditConfig, peft_config: PeftConfig | None) -> PeftConfig | None:
    """The adapter to put on `model`: the given one, or the paper's; none on a model that has one already."""
    if hasattr(model, "peft_config") and args.adapter:
        return None  # the adapter that training goes on from is as it is
    if hasattr(model, "peft_config") or (args.full_finetune and peft_config is None):
        return peft_config
    return fit_lora(peft_config or default_lora(), model, embedding=args.lora_embedding, layers=args.lora_layers)


def _prior(args: EditConfig, source: Any) -> Continued | None:
    """What is trained after `args.adapter`, where there is one."""
    if args.adapter is None:
        return None
    if source is not None and not isinstance(source, list):
        raise EditError("adapter goes on from edits: give new edits (records, dicts, or a file), not training rows")
    if args.full_finetune:
        raise EditError("adapter and full_finetune do not go together; use merge_into_base to get a whole model")
    folder = open_edits(args.adapter)
    if folder.is_adapter:
        fetch_adapter(args.adapter)
    else:
        raise EditError(f"adapter {args.adapter!r} holds a whole model; edit it as any other, by its name")
    return continued(args.adapter, folder, source or [], args.revoke or [])


def _check_best(args: EditConfig, records: Sequence[EditRecord], *, measures_rows: bool) -> None:
    """Stop where the best checkpoint is to be chosen by a score that cannot be measured."""
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    kinds = {"generalization": "paraphrase_prompts", "locality": "neighborhood_prompts"}
    if metric not in ("edit_score", "efficacy", *kinds):
        return
    if measures_rows or not records:
        raise EditError(f"metric_for_best_model {metric!r} needs edits to evaluate; for rows, choose 'loss'")
    for score, kind in kinds.items():
        if metric in (score, "edit_score") and not any(getattr(record, kind) for record in records):
            raise EditError(
                f"metric_for_best_model {metric!r} is undefined: no edit has {kind}; add some, or choose 'efficacy'"
            )


def _records(source: Any) -> list[EditRecord]:
    if isinstance(source, EditDatasetBuilder):
        return source.records
    return source if isinstance(source, list) else []


def _loaded(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    args: EditConfig,
    records: Sequence[EditRecord],
    quantization_config: Any,
    prior: Continued | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model, with an adapter to go on from, and tokenizer, after the edits were seen to fit into its context."""
    if prior:
        if hasattr(model, "peft_config"):
            raise EditError("adapter is given, and the model has an adapter already; give the base model")
        own = base_of(prior.folder.path, prior.folder)
        if model is None or (model == own[0] and own[1]):
            args.model_init_kwargs = {**(args.model_init_kwargs or {}), "revision": own[1]}  # type: ignore[dict-item]
        base, tokenizer = _base(own[0] if model is None else model, tokenizer, args, records, quantization_config)
        check_base(base, prior.folder.provenance, prior.name)
        adapted: Any = base if prior.revoked else load_adapter(base, prior.folder.path, is_trainable=True)
        return adapted, tokenizer
    if model is None:
        raise EditError("model is missing; give the model to edit, or its Hub id or folder")
    return _base(model, tokenizer, args, records, quantization_config)


def _base(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    args: EditConfig,
    records: Sequence[EditRecord],
    quantization_config: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    how: dict[str, Any] = {"chat_template": args.chat_template}
    if not isinstance(model, str):
        tokenizer = tokenizer or load_tokenizer(model.config._name_or_path, trust_remote_code=args.trust_remote_code)
        check_lengths(records, tokenizer, context_length(model.config), **how)
        return model, tokenizer
    how |= {"trust_remote_code": args.trust_remote_code, "quantization_config": quantization_config}
    how |= dict(args.model_init_kwargs or {})  # type: ignore[arg-type]
    args.model_init_kwargs = None  # used here; TRL would warn that they are ignored
    return load_checked(model, records, tokenizer, **how)


def _builder(
    records: list[EditRecord],
    facts: list[Fact] | None,
    args: EditConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: list[EditRecord],
    revoked: list[EditRecord],
) -> EditDatasetBuilder:
    with unedited(model):
        return EditDatasetBuilder(
            records,
            model,
            tokenizer,
            locality_pool=facts,
            options=args,
            held_out=held_out,
            revoked=revoked,
            chat_template=args.chat_template,
            seed=args.seed,
        )
