"""Several edit adapters of one base model made into one; or one put into the weights of its base model."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import PrinterCallback

from hf_ftedit.card import SHOWN_EDITS
from hf_ftedit.config import EditConfig
from hf_ftedit.continuing import scores_of, united
from hf_ftedit.edit_folder import EditFolder, read_edit_folder, save_edit_folder
from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.evaluation import load_checked, measure, results_of
from hf_ftedit.examples import examples
from hf_ftedit.folders import require_empty
from hf_ftedit.generation import shared_answers
from hf_ftedit.loading import EMBEDDED_NAME, asset, load_adapter, public_name, unedited
from hf_ftedit.options import RECORD
from hf_ftedit.processes import process_state
from hf_ftedit.published import base_of, check_base, fetch_adapter, open_edits
from hf_ftedit.readers import read_facts
from hf_ftedit.recipe import inherited, record_of
from hf_ftedit.records import EditRecord, Fact
from hf_ftedit.trainer import EditTrainer
from hf_ftedit.verification import options_of, quantization_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DEFAULT = "default"  # PEFT's name of the one adapter that is saved into the folder itself


class Part(NamedTuple):
    """
    One adapter to merge.

    Args:
        name (`str`):
            What it is called: its Hub id, or its folder's own name.
        folder ([`EditFolder`]):
            What it says of itself.
        revision (`str`, *optional*):
            Its commit, where it is from the Hub.
        edits (`list[EditRecord]`):
            Those of its edits that count.
        weight (`float`):
            How much it counts.
    """

    name: str
    folder: EditFolder
    revision: str | None
    edits: list[EditRecord]
    weight: float


class Conflict(NamedTuple):
    """
    Two edits that cannot both hold.

    Args:
        first (`str`), second (`str`):
            The adapters.
        edit (`EditRecord`), other (`EditRecord`):
            Their edits.
    """

    first: str
    edit: EditRecord
    second: str
    other: EditRecord

    def __str__(self) -> str:
        ours = f"{shown(self.edit.prompt)} is {shown(self.edit.target_new)} in {self.first} ({self.edit.edit_id})"
        return f"{ours} and {shown(self.other.target_new)} in {self.second} ({self.other.edit_id})"


def conflicts(parts: Mapping[str, Sequence[EditRecord]]) -> list[Conflict]:
    """
    Edits of different adapters that give one prompt, or one subject and relation, different targets.

    Args:
        parts (`Mapping[str, Sequence[EditRecord]]`):
            Edits by adapter.
    """
    known: dict[Any, tuple[str, EditRecord]] = {}
    found: dict[tuple[str, str, str, str], Conflict] = {}
    for name, edits in parts.items():
        for edit in edits:
            for key in _keys(edit):
                first, other = known.setdefault(key, (name, edit))
                if first != name and _plain(other.target_new) != _plain(edit.target_new):
                    found.setdefault((first, other.edit_id, name, edit.edit_id), Conflict(first, other, name, edit))
    return list(found.values())


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
) -> EditFolder:
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
        `EditFolder`: what was written: the edits of all, their scores, and, in its record, the parts.

    Raises:
        [`~hf_ftedit.records.EditError`]: base models differ, edits conflict, or PEFT cannot combine the adapters so.

    Example:
    ```python
    both = merge(["user/capitals", "user/authors"], "both")
    print(both.results["after"]["efficacy"])
    ```
    """
    require_empty(output_dir)
    parts = _parts(names, weights, 1 if merge_into_base else 2)
    source, revision = _common_base(parts, base_model)
    clashes = conflicts({part.name: part.folder.records for part in parts})
    if clashes:
        parts = _decided(parts, clashes, prefer, dict(zip(names, (part.name for part in parts), strict=True)))
    edits = united([part.edits for part in parts], [part.name for part in parts])
    first = parts[0].folder
    options, chat = options_of(first), bool(first.recipe.get("chat_template"))
    facts = None if locality_pool is None else read_facts(locality_pool)
    base, tokenizer = load_checked(
        source,
        edits,
        chat_template=chat,
        revision=revision,
        dtype=first.recipe.get("dtype", "float32"),
        quantization_config=None if merge_into_base else quantization_of(first.recipe),
        trust_remote_code=trust_remote_code,
    )
    for part in parts:
        check_base(base, part.folder.record, part.name)
    model: Any = combined(base, parts, combination_type, density)
    if clashes:
        _settle(model, tokenizer, edits, first.recipe, facts)
    asked, how = [edit.prompt for edit in edits[:SHOWN_EDITS]], {"seed": first.recipe.get("seed", 42)}
    with unedited(model):
        measured = {"before": measure(model, tokenizer, edits, options, desc="Measuring before", **how)}
        said = shared_answers(model, tokenizer, asked, chat_template=chat)
    record = record_of(first.recipe, model, [])
    if merge_into_base:
        model = model.merge_and_unload()
    measured["after"] = measure(model, tokenizer, edits, options, desc="Measuring after", **how)
    record |= {"combination": combination_type, "parts": _credits(parts, measured["after"], edits)}
    results = {
        **results_of(measured),
        "base_model": first.results["base_model"],
        "base_model_revision": first.recipe.get("model_revision"),
        **examples(model, tokenizer, asked, said, chat_template=chat),
    }
    recipe = {name: value for name, value in first.recipe.items() if name not in ("adapter", "revoke")}
    recipe |= {"merge_into_base": merge_into_base, RECORD: record}
    process = process_state()
    if process.is_main_process:
        save_edit_folder(output_dir, model, tokenizer, records=edits, results=results, recipe=recipe)
    process.wait_for_everyone()
    return read_edit_folder(output_dir)


def combined(base: Any, parts: Sequence[Part], combination_type: str = "cat", density: float = 0.5) -> PeftModel:
    """
    `base` with one adapter that is made of those of the parts, by PEFT's `add_weighted_adapter`.

    Raises:
        [`~hf_ftedit.records.EditError`]: they cannot be combined so.
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


def _parts(names: Sequence[str], weights: Sequence[float] | None, fewest: int) -> list[Part]:
    if len(names) < fewest:
        raise EditError(f"merge got {len(names)} adapters and needs {fewest} or more; name their folders or Hub ids")
    if weights is not None and len(weights) != len(names):
        raise EditError(f"weights are {len(weights)} and the adapters {len(names)}; give one weight for each")
    found: list[Part] = []
    for name, weight in zip(names, weights or [1.0] * len(names), strict=True):
        folder = open_edits(name)
        fetch_adapter(name)
        public = public_name(name)
        while public in [part.name for part in found]:  # folders of one name in different places
            public += "'"
        revision = None if Path(name).is_dir() else folder.path.name
        found.append(Part(public, folder, revision, folder.records, weight))
    return found


def _common_base(parts: Sequence[Part], base_model: str | None) -> tuple[str, str | None]:
    """The base model of all parts, as it is to be loaded."""
    first, *others = parts
    for name in ("model_name_or_path", "model_revision", "chat_template"):
        ours = first.folder.recipe.get(name)
        for other in others:
            if (theirs := other.folder.recipe.get(name)) != ours:
                raise EditError(
                    f"{shown(first.name)} and {shown(other.name)} differ in {name} ({shown(ours)} and "
                    f"{shown(theirs)}); only adapters of one base model can be merged"
                )
    return base_of(first.folder.path, first.folder, base_model)


def _decided(
    parts: Sequence[Part], clashes: Sequence[Conflict], prefer: str | None, given: Mapping[str, str]
) -> list[Part]:
    """The parts without the edits that lose: those that conflict with one of the preferred part."""
    preferred = given.get(prefer or "", prefer)
    open_clashes = [clash for clash in clashes if preferred not in (clash.first, clash.second)]
    if open_clashes:
        more = f" ({len(open_clashes) - 1} more such conflicts)" if len(open_clashes) > 1 else ""
        raise EditError(f"edits conflict: {open_clashes[0]}{more}; give --prefer with the adapter whose edits win")
    lost = {(clash.second, clash.other.edit_id) for clash in clashes if clash.first == preferred}
    lost |= {(clash.first, clash.edit.edit_id) for clash in clashes if clash.second == preferred}
    for name, edit_id in sorted(lost):
        logger.info("left out edit %s of %s: %s has another answer, and is preferred", shown(edit_id), name, preferred)
    return [
        part._replace(edits=[edit for edit in part.edits if (part.name, edit.edit_id) not in lost]) for part in parts
    ]


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


def _keys(edit: EditRecord) -> list[Any]:
    """What two edits share if they are about the same: the prompt, or the subject and the relation."""
    keys: list[Any] = [_plain(edit.prompt)]
    if edit.subject and edit.relation_id:
        keys.append((_plain(edit.subject), edit.relation_id))
    return keys


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
