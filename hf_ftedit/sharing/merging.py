"""Several edit adapters of one base model made into one; or one put into the weights of its base model."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback

from hf_ftedit.data import EditRecord, Fact, read_facts
from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.evaluation import Measurement, load_checked, measure, results_of
from hf_ftedit.files import require_empty
from hf_ftedit.hub import (
    SHOWN_EDITS,
    SavedEdits,
    check_base,
    examples,
    read_edit_folder,
    save_edit_folder,
)
from hf_ftedit.models import EMBEDDED_NAME, asset, load_adapter, process_state, shared_answers, unedited
from hf_ftedit.options import PROVENANCE, EditOptions
from hf_ftedit.sharing.conflicts import conflicts, decided
from hf_ftedit.sharing.merge_parts import Part, common_base, opened
from hf_ftedit.training import (
    EditConfig,
    EditTrainer,
    inherited,
    options_of,
    provenance_of,
    quantization_of,
    scores_of,
    united,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DEFAULT = "default"  # PEFT's name of the one adapter that is saved into the folder itself


def merge(
    names: Sequence[str],
    output_dir: str | Path,
    *,
    combination_type: str = "cat",
    weights: Sequence[float] | None = None,
    density: float = 0.5,
    prefer: str | None = None,
    base_model: str | None = None,
    locality_pool: str | Iterable[Fact] | None = None,
    merge_into_base: bool = False,
    trust_remote_code: bool = False,
) -> SavedEdits:
    """
    Combine edit adapters of one base model, measure all their edits, and write the folder.

    Under `accelerate launch` every process must call this: they share the measuring, and the first one writes.

    Args:
        names (`Sequence[str]`):
            Hub ids or folders.
        output_dir (`str` or `Path`):
            Where to; must not exist with content.
        combination_type (`str`, *optional*, defaults to `"cat"`):
            How PEFT's `add_weighted_adapter` combines them: `"cat"` (ranks add up, and nothing is lost), `"ties"`,
            `"dare_ties"`, `"dare_linear"`, `"linear"`, or one of the `"..._svd"` kinds.
        weights (`Sequence[float]`, *optional*):
            How much each one counts; 1 by default.
        density (`float`, *optional*, defaults to `0.5`):
            Share of the weights that the ties and dare kinds keep.
        prefer (`str`, *optional*):
            The one of `names` whose edits win where some conflict. The merged adapter is then trained for one epoch on
            the edits that remain, as the weights still hold both sides.
        base_model (`str`, *optional*):
            The base model, where it is not the recorded one.
        locality_pool (`str` or `Iterable[Fact]`, *optional*):
            Facts that must stay, for that training.
        merge_into_base (`bool`, *optional*, defaults to `False`):
            Write a whole model; `names` may then be one.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Run code that the base model's repository brings.

    Returns:
        `SavedEdits`: what was written: the edits of all, their scores, and, in its provenance, the parts.

    Raises:
        [`~hf_ftedit.EditError`]: base models differ, edits conflict, or PEFT cannot combine the adapters so.

    Example:
    ```python
    both = merge(["user/capitals", "user/authors"], "both")
    print(both.results["after"]["efficacy"])
    ```
    """
    require_empty(output_dir)
    parts = opened(names, weights, 1 if merge_into_base else 2)
    preferred = dict(zip(names, (part.name for part in parts), strict=True)).get(prefer or "", prefer)
    source = common_base(parts, base_model)
    parts, had_conflicts = _without_conflicts(parts, preferred)
    edits = united([part.edits for part in parts], [part.name for part in parts])
    first = parts[0].folder
    options, seed = options_of(first.recipe), first.recipe.get("seed", 42)
    facts = None if locality_pool is None else read_facts(locality_pool)
    base, tokenizer = _loaded(source, parts, edits, in_full=merge_into_base, trust_remote_code=trust_remote_code)
    model = combined(base, parts, combination_type, density)
    if had_conflicts:
        _settle(model, tokenizer, edits, first.recipe, facts)
    provenance = provenance_of(first.recipe, model, [])  # of the adapter, before it may go into the base model
    model, measured, said = _measured(model, tokenizer, edits, options, seed, merge_into_base)
    provenance |= {"combination": combination_type, "parts": _credits(parts, measured["after"], edits)}
    recipe = {name: value for name, value in first.recipe.items() if name not in ("adapter", "revoke")}
    recipe |= {"merge_into_base": merge_into_base, PROVENANCE: provenance}
    results = results_of(measured) | {
        "base_model": first.results["base_model"],
        "base_model_revision": first.recipe.get("model_revision"),
        **said,
    }
    return _written(output_dir, model, tokenizer, edits, results, recipe)


def combined(base: Any, parts: Sequence[Part], combination_type: str = "cat", density: float = 0.5) -> PeftModel:
    """
    `base` with one adapter that is made of those of the parts, by PEFT's `add_weighted_adapter`.

    Raises:
        [`~hf_ftedit.EditError`]: they cannot be combined so.
    """
    import torch

    model, names = base, [f"part{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        model = load_adapter(model, part.folder.path, adapter_name=name)
    for name, part in zip(names, parts, strict=True):
        config = model.peft_config[name]
        if getattr(config, "use_dora", False) or getattr(config, "bias", "none") != "none":
            raise EditError(f"{shown(part.name)} has DoRA or biases, which cannot be merged; train all edits at once")
        config.use_rslora = False  # the layers know their scale already; of the new adapter it is 1
    how = {"density": density} if any(word in combination_type for word in ("ties", "dare", "prune")) else {}
    torch.manual_seed(0)  # dare drops at random
    try:
        weights = [part.weight for part in parts]
        model.add_weighted_adapter(names, weights, DEFAULT, combination_type=combination_type, **how)
    except ValueError as error:
        raise EditError(f"combination_type {combination_type!r}: {one_line(error)}; cat takes any adapters") from error
    model.set_adapter(DEFAULT)
    for name in names:
        model.delete_adapter(name)
    return model.eval()


def _without_conflicts(parts: list[Part], preferred: str | None) -> tuple[list[Part], bool]:
    """The parts, without edits that conflict with one of the preferred part; and whether there were any."""
    edits = {part.name: part.edits for part in parts}
    found = conflicts(edits)
    if not found:
        return parts, False
    kept = decided(edits, found, preferred)
    return [part._replace(edits=kept[part.name]) for part in parts], True


def _loaded(
    source: tuple[str, str | None],
    parts: Sequence[Part],
    edits: Sequence[EditRecord],
    *,
    in_full: bool,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model, which must be that of every part, and its tokenizer; `in_full`, it is not quantized."""
    recipe = parts[0].folder.recipe
    base, tokenizer = load_checked(
        source[0],
        edits,
        chat_template=bool(recipe.get("chat_template")),
        revision=source[1],
        dtype=recipe.get("dtype", "float32"),
        quantization_config=None if in_full else quantization_of(recipe),
        trust_remote_code=trust_remote_code,
    )
    for part in parts:
        check_base(base, part.folder.provenance, part.name)
    return base, tokenizer


def _settle(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRecord],
    recipe: Mapping[str, Any],
    facts: list[Fact] | None,
) -> None:
    """Train the merged adapter for an epoch on the edits that remain: its weights hold both sides of a conflict."""
    if facts is None and recipe.get("model_name_or_path") == EMBEDDED_NAME:
        facts = read_facts(asset("locality_pool.jsonl"))
    names = {field.name for field in fields(EditConfig) if field.init} - {"locality_pool", "perplexity_texts"}
    settings = {name: value for name, value in inherited(recipe).items() if name in names}
    with tempfile.TemporaryDirectory() as folder:
        run = {"output_dir": folder, "num_train_epochs": 1, "disable_tqdm": not sys.stderr.isatty()}
        trainer = EditTrainer(
            model, EditConfig(**settings | run), train_dataset=edits, processing_class=tokenizer, locality_pool=facts
        )
        trainer.remove_callback(PrinterCallback)
        logger.info(
            "training one epoch on the %d edits that remain: the merged weights hold both sides of a conflict",
            len(edits),
        )
        trainer.train()
    model.eval()


def _measured(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRecord],
    options: EditOptions,
    seed: int,
    merge_into_base: bool,
) -> tuple[Any, dict[str, Measurement], dict[str, Any]]:
    """The model, by then in the weights of its base where asked; its scores; and its answers, for the card."""
    asked, chat = [edit.prompt for edit in edits[:SHOWN_EDITS]], options.chat_template
    with unedited(model):
        before = measure(model, tokenizer, edits, options, seed=seed, desc="Measuring before")
        said = shared_answers(model, tokenizer, asked, chat_template=chat)
    if merge_into_base:
        model = model.merge_and_unload()
    after = measure(model, tokenizer, edits, options, seed=seed, desc="Measuring after")
    answers = examples(model, tokenizer, asked, said, chat_template=chat)
    return model, {"before": before, "after": after}, answers


def _written(
    output_dir: str | Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRecord],
    results: dict[str, Any],
    recipe: dict[str, Any],
) -> SavedEdits:
    """What the first process writes, as all of them read it."""
    process = process_state()
    if process.is_main_process:
        save_edit_folder(output_dir, model, tokenizer, records=edits, results=results, recipe=recipe)
    process.wait_for_everyone()
    return read_edit_folder(output_dir)


def _credits(parts: Sequence[Part], after: Any, edits: Sequence[EditRecord]) -> list[dict[str, Any]]:
    """What each part brought, and how its edits do alone and here."""
    ids = {edit.prompt: edit.edit_id for edit in edits}
    found = []
    for part in parts:
        own = [ids[edit.prompt] for edit in part.edits]
        here = scores_of(after.predictions, own, after.scores["protocol"]) if own else {}
        found.append(
            {
                "name": part.name,
                "revision": part.revision,
                "n_edits": len(own),
                "weight": part.weight,
                "efficacy_alone": part.folder.results["after"].get("efficacy"),
                "efficacy": here.get("efficacy"),
            }
        )
    return found
