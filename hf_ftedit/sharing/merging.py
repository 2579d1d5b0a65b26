"""Merge edit adapters of one base model into one adapter, or put one into the weights of its base model."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from hf_ftedit import evaluation, hub, models
from hf_ftedit.data import EditRecord, combine_edits
from hf_ftedit.errors import EditError, one_line, shown
from hf_ftedit.files import require_empty
from hf_ftedit.options import PROVENANCE, TEMPLATE_FILE, check_value
from hf_ftedit.sharing.conflicts import check_conflicts
from hf_ftedit.sharing.verification import load_base
from hf_ftedit.text import counted
from hf_ftedit.training import QUANTIZATION_KEYS, provenance_of, quantization_of, scores_of

logger = logging.getLogger(__name__)

# PEFT saves an adapter of this name into the folder itself, and any other one into a folder below it.
MERGED = "default"
NOT_INHERITED = ("adapter", "revoke", "merge_into_base")  # settings of the first part that say nothing of the whole


class Part(NamedTuple):
    """One adapter to merge."""

    name: str  # safe to publish
    saved: hub.SavedEdits
    revision: str | None  # its commit where it is from the Hub
    weight: float  # factor of its weights


def merge(
    names: Sequence[str],
    output_dir: str | Path,
    *,
    combination_type: str = "cat",
    weights: Sequence[float] | None = None,
    density: float = 0.5,
    base_model: str | None = None,
    gguf_file: str | None = None,
    merge_into_base: bool = False,
    trust_remote_code: bool = False,
) -> hub.SavedEdits:
    """
    Merge edit adapters of one base model, measure all their edits, and write the folder. Nothing is trained.

    Under `accelerate launch` every process must call this: they share the measuring, and the first one writes.

    Args:
        names (`Sequence[str]`): Hub ids or folders.
        output_dir (`str` or `Path`): Where to; must not exist with content.
        combination_type (`str`, *optional*, defaults to `"cat"`): A kind of PEFT's `add_weighted_adapter`: `"cat"`
            (ranks add up, and nothing is lost), `"ties"`, `"dare_ties"`, `"dare_linear"`, `"linear"`, or one of the
            `"..._svd"` kinds.
        weights (`Sequence[float]`, *optional*): Factor of each adapter's weights; 1 by default.
        density (`float`, *optional*, defaults to `0.5`): Share of the weights that the ties and dare kinds keep.
        base_model (`str`, *optional*): The base model, or path of its GGUF file, where it is not the recorded one.
        gguf_file (`str`, *optional*): Name of the GGUF file in `base_model`, where it is not the recorded one.
        merge_into_base (`bool`, *optional*, defaults to `False`): Write a whole model; `names` may then be one.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that the base model's repository brings.

    Returns:
        `SavedEdits`: the folder: the edits of all, their scores, and, in its provenance, the parts.

    Raises:
        [`~hf_ftedit.EditError`]: base models differ, edits conflict, or PEFT cannot combine the adapters so.

    Example:
    ```python
    both = merge(["user/capitals", "user/authors"], "both")
    print(both.results["after"]["efficacy"])
    ```
    """
    check_value("density", density, float)
    check_value("combination_type", combination_type, str)
    require_empty(output_dir)
    parts = _open_parts(names, weights, fewest=1 if merge_into_base else 2)
    edits = combine_edits((part.name, part.saved.records) for part in parts)
    first, *others = parts
    source = hub.base_of(first.saved.path, first.saved, base_model, gguf_file)
    evaluated = _load(first, edits, source, is_whole=merge_into_base, trust_remote_code=trust_remote_code)
    for part in others:
        hub.check_base(evaluated.model, part.saved.settings, part.name)
    evaluated = evaluated._replace(model=combine(evaluated.model, parts, combination_type, density))
    content = _measured(evaluated, edits, parts, combination_type, merge_into_base)
    process = models.process_state()
    if process.is_main_process:
        hub.save_edit_folder(output_dir, **content)
    process.wait_for_everyone()
    return hub.read_edit_folder(output_dir)


def _load(first: Part, edits: Sequence[EditRecord], source: Any, *, is_whole: bool, trust_remote_code: bool) -> Any:
    recipe = first.saved.recipe
    # A whole model is written in full precision: a quantized base would round the edits away.
    loading = {"quantization_config": None if is_whole else quantization_of(recipe)}
    loading |= {"dtype": recipe.get("dtype", "float32"), "trust_remote_code": trust_remote_code}
    return load_base(first.saved, first.name, edits, source, **loading)


def combine(base: Any, parts: Sequence[Part], combination_type: str = "cat", density: float = 0.5) -> PeftModel:
    """`base` with one adapter that PEFT's `add_weighted_adapter` makes of those of the parts."""
    if len(parts) == 1 and parts[0].weight == 1:  # of any kind
        return models.load_adapter(base, parts[0].saved.path)
    model, names = base, [f"part{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        model = models.load_adapter(model, part.saved.path, adapter_name=name)
        config: Any = model.peft_config[name]
        if extra := models.beyond_lora(config):
            raise EditError(f"{shown(part.name)} has {extra[0]}, which cannot be merged; train all edits at once")
        # The new adapter is made by the first one's settings; of one that is not in all layers, its modules are named.
        if config.layers_to_transform is not None or config.exclude_modules:
            modules = model.get_base_model().named_modules()
            layers = ((own, layer) for own, layer in modules if isinstance(layer, LoraLayer))
            config.target_modules = {own for own, layer in layers if name in (*layer.lora_A, *layer.lora_embedding_A)}
            config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
        # The layers keep the scale that they were loaded with; PEFT would give it to the new adapter once more.
        config.use_rslora = False
    # The other kinds refuse a density.
    settings = {"density": density} if any(word in combination_type for word in ("ties", "dare", "prune")) else {}
    # Dare drops weights at random: the same parts are to give the same adapter.
    torch.manual_seed(0)
    try:
        model.add_weighted_adapter(names, [part.weight for part in parts], MERGED, combination_type, **settings)
    except ValueError as error:
        raise EditError(f"combination_type {combination_type!r}: {one_line(error)}; cat takes any adapters") from error
    model.set_adapter(MERGED)
    for name in names:
        model.delete_adapter(name)
    return model.eval()


def _open_parts(names: Sequence[str], weights: Sequence[float] | None, fewest: int) -> list[Part]:
    """The adapters of these names; raises [`~hf_ftedit.EditError`] where they do not go together, or are too few."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise EditError(f"names is {shown(names)}; give a list of adapters")
    names = [*map(os.fspath, names)]
    weights = check_value("weights", weights, list[float] | None)
    if len(names) < fewest:
        needed = counted(fewest, "adapter")
        raise EditError(f"merge needs {needed} or more, and got {len(names)}; name their folders or Hub ids")
    if weights is not None and len(weights) != len(names):
        raise EditError(f"{counted(len(weights), 'weight')} for {counted(len(names), 'adapter')}: give one for each")
    parts: list[Part] = []
    for name, weight in zip(names, weights or [1.0] * len(names), strict=True):
        saved = hub.open_edits(name)
        models.check_adapter(saved.path, name)
        public = models.public_name(name)
        # Folders of one name in different places: the credits on the card differ by a prime.
        while public in [part.name for part in parts]:
            public += "'"
        # A snapshot of the Hub lies in the cache under its commit.
        parts.append(Part(public, saved, None if Path(name).is_dir() else saved.path.name, weight))
    _check_same_base(parts)
    check_conflicts({name: part.saved.records for name, part in zip(names, parts, strict=True)})
    files = [part.saved.provenance["files"].get(models.ADAPTER_WEIGHTS, part.saved.path) for part in parts]
    if weights is None and len({*files}) < len(files):
        remedy = "name each once, or give weights"
        raise EditError(f"merge got an adapter twice, which would double what it changes; {remedy}")
    edits = [(edit.prompt, edit.target_new) for part in parts for edit in part.saved.records]
    if weights is None and (count := len(edits) - len({*edits})):
        # As where one adapter goes on from another.
        shared = f"{counted(count, 'edit')} in common, and what they change is added up"
        remedy = "leave an adapter out whose edits another one has, or give weights"
        logger.warning("several of these adapters have %s; %s", shared, remedy)
    return parts


def _check_same_base(parts: Sequence[Part]) -> None:
    """Raise [`~hf_ftedit.EditError`] where the parts were not trained on one base model in one way of prompting."""
    # The chat template too: with it the same prompt is other tokens, and the edits would not hold.
    first, *others = parts
    prompting = ("chat_template", "eos_token", "end_of_answer", TEMPLATE_FILE)
    for setting in ("model_name_or_path", "model_revision", "gguf_file", *prompting):
        # What 0.1.0 did not know it did not write; later, such settings are written as False.
        values = ({**part.saved.provenance["files"], **part.saved.recipe}.get(setting) or None for part in parts)
        ours, *all_theirs = values
        for other, theirs in zip(others, all_theirs, strict=True):
            if theirs != ours:
                problem = f"differ in {setting} ({shown(ours)} and {shown(theirs)})"
                remedy = "only adapters of one base model can be merged"
                raise EditError(f"{shown(first.name)} and {shown(other.name)} {problem}; {remedy}")


def _measured(
    evaluated: evaluation.EvaluatedModel, edits: Sequence[EditRecord], parts: Sequence[Part], kind: str, is_whole: bool
) -> dict[str, Any]:
    """Measure all edits without and with the merged adapter: the content of its folder."""
    model, tokenizer, options, _ = evaluated
    # A whole model is measured, and written, in full precision.
    gone = (*NOT_INHERITED, *QUANTIZATION_KEYS) if is_whole else NOT_INHERITED
    recipe = {name: value for name, value in parts[0].saved.recipe.items() if name not in gone}
    # Before the adapter goes into the base model, which has no rank.
    provenance = provenance_of(recipe, model, [])
    prompts = [edit.prompt for edit in edits[: hub.SHOWN_EDITS]]
    settings: dict[str, Any] = {"options": options, "seed": recipe.get("seed", 42)}
    with models.unedited(model):
        before = evaluation.measure(model, tokenizer, edits, desc="Measuring before", **settings)
        old = hub.card_answers(evaluated, prompts, before.predictions)
    if is_whole:
        model = models.merged(model)
    after = evaluation.measure(model, tokenizer, before.records, before=before, desc="Measuring after", **settings)
    results = evaluation.results_of({"before": before, "after": after})
    results["base_model"] = parts[0].saved.results["base_model"]
    results["base_model_revision"] = recipe.get("model_revision")
    results |= hub.examples(evaluated._replace(model=model), prompts, old, after.predictions)
    recipe[PROVENANCE] = provenance | {"combination": kind, "parts": _credits(parts, after, edits)}
    return {"model": model, "tokenizer": tokenizer, "records": before.records, "results": results, "recipe": recipe}


def _credits(parts: Sequence[Part], after: Any, edits: Sequence[EditRecord]) -> list[dict[str, Any]]:
    """Each part's edits and weight, and its efficacy alone and in the merged adapter."""
    # By prompt: an `edit_id` that two parts share was changed in one of them.
    ids, protocol = {edit.prompt: edit.edit_id for edit in edits}, after.scores["protocol"]
    rows = []
    for part in parts:
        own = [ids[edit.prompt] for edit in part.saved.records]
        # Alone it may have been scored by another protocol.
        alone, merged = part.saved.results["after"], scores_of(after.predictions, own, protocol)
        alone = alone if alone.get("protocol") == protocol else alone.get(protocol) or {}
        row = {"name": part.name, "revision": part.revision, "n_edits": len(own), "weight": part.weight}
        rows.append({**row, "efficacy_alone": alone.get("efficacy"), "efficacy": merged.get("efficacy")})
    return rows
