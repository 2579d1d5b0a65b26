"""What the verbs that edit and measure are given: options, edits, facts, base model; checked before torch loads."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_ftedit.cli.arguments import OPTIONS, CommonOptions, check_known, parsed, resume_wish
from hf_ftedit.data import EditRecord, Fact, is_hub_dataset, read_edits, read_facts
from hf_ftedit.errors import EditError
from hf_ftedit.files import require_empty
from hf_ftedit.models import EMBEDDED_NAME, asset

if TYPE_CHECKING:
    from trl import ModelConfig


def checked_input(verb: str, args: list[str]) -> tuple[Any, list[EditRecord], list[Fact] | None]:
    """A verb's options, its edits and its locality pool, read and checked before torch is loaded."""
    options, _ = parsed((OPTIONS[verb],), args, partly=True)
    if is_continued := verb == "train" and options.adapter is not None:
        options, _ = parsed((OPTIONS[verb],), args, partly=True, defaults=adapter_recipe(options))
    if verb == "evaluate" and options.adapter is not None:
        options, _ = parsed((OPTIONS[verb],), args, partly=True, defaults=measured_recipe(options.adapter))
    if options.model_name_or_path in (None, EMBEDDED_NAME):
        options.edits = options.edits or (None if is_continued else asset("edits.jsonl"))
        options.locality_pool = options.locality_pool or asset("locality_pool.jsonl")
    if options.edits is None and not is_continued:
        raise EditError("--edits is missing; give a file with the edits, such as edits.jsonl")
    from hf_ftedit.training import require_place

    if options.output_dir and verb == "train":
        require_place(options.output_dir, resume_wish(options.resume_from_checkpoint))
    elif options.output_dir:
        require_empty(options.output_dir)
    edits = []
    if options.edits:
        edits = read_edits(options.edits, options.format, options.max_edits, skip_invalid=options.skip_invalid)
    if options.measure_fluency and edits:
        from hf_ftedit.evaluation import check_fluency

        check_fluency(edits)
    if len(edits) < 1000 or not sys.stderr.isatty():  # bars that flash by tell nobody anything, and fill log files
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    return options, edits, read_facts(options.locality_pool) if options.locality_pool else None


def adapter_recipe(options: Any) -> dict[str, Any]:
    """Settings of the adapter that `train` goes on from; its pool of facts must be here, or be one of the Hub."""
    if options.adapter is None:
        return {}
    from hf_ftedit.hub import open_edits
    from hf_ftedit.training import inherited

    settings = inherited(open_edits(options.adapter).recipe)
    pool = settings.get("locality_pool")
    if settings.get("model_name_or_path") == EMBEDDED_NAME and pool == Path(asset("locality_pool.jsonl")).name:
        del settings["locality_pool"]
    elif pool and not options.locality_pool and not Path(pool).exists() and not is_hub_dataset(pool):
        raise EditError(
            f"adapter {options.adapter!r} was trained with the locality pool {pool!r}, which is not here; "
            "give it with --locality_pool, or another one"
        )
    return settings


def measured_recipe(adapter: str) -> dict[str, Any]:
    """How the edits of an adapter were measured: on which model, in which precision, through which template."""
    from hf_ftedit.hub import fetch_adapter
    from hf_ftedit.training import QUANTIZATION_KEYS

    recipe = recipe_beside(fetch_adapter(adapter), adapter)
    names = ("model_name_or_path", "model_revision", "chat_template", "dtype", *QUANTIZATION_KEYS)
    return {name: recipe[name] for name in names if name in recipe}


def embedded_recipe(options: CommonOptions) -> dict[str, Any]:
    """Training settings that suit the embedded model, where it is the one to edit."""
    if options.model_name_or_path not in (None, EMBEDDED_NAME):
        return {}
    return yaml.safe_load(Path(asset("train.yaml")).read_text(encoding="utf-8"))


def model_settings(model_config: ModelConfig) -> dict[str, Any]:
    """What of [`~trl.ModelConfig`] goes to `from_pretrained`."""
    settings = {"revision": model_config.model_revision, "attn_implementation": model_config.attn_implementation}
    return {"dtype": model_config.dtype, **{name: value for name, value in settings.items() if value is not None}}


def base_model(options: CommonOptions, edits: Sequence[EditRecord], args: list[str]) -> tuple[Any, Any]:
    """The model and tokenizer of a verb that does not train."""
    from trl import get_quantization_config

    from hf_ftedit.evaluation import load_checked
    from hf_ftedit.training import EditConfig, EditModelConfig

    check_known((type(options), EditModelConfig, EditConfig), args)  # a recipe of `train` serves here too
    recipe = measured_recipe(options.adapter) if options.adapter else {}
    if options.model_name_or_path != recipe.get("model_name_or_path"):  # another base model has other commits
        recipe.pop("model_revision", None)
    model_config, _ = parsed((EditModelConfig,), args, partly=True, defaults=recipe)
    return load_checked(
        options.model_name_or_path,
        edits,
        chat_template=options.chat_template,
        trust_remote_code=options.trust_remote_code,
        quantization_config=get_quantization_config(model_config),
        **model_settings(model_config),
    )


def recipe_beside(folder: Path, name: str) -> dict[str, Any]:
    """The settings that an adapter folder holds; nothing where there are none. Raises as `read_recipe`."""
    from hf_ftedit.hub import RECIPE_FILE, read_recipe

    return read_recipe(folder, name) if (folder / RECIPE_FILE).is_file() else {}
