"""Defaults of the verbs that edit and measure: the embedded edits and model, the recipe of an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_ftedit import evaluation, hub, models, training
from hf_ftedit.cli.arguments import Arguments, parse_rest
from hf_ftedit.cli.console import claim_empty
from hf_ftedit.cli.options import CommonOptions
from hf_ftedit.data import EditRecord, edits_of, is_hub_dataset
from hf_ftedit.errors import EditError
from hf_ftedit.options import SOURCES
from hf_ftedit.untrusted import check_lines

# Settings of an adapter's recipe with which its edits were measured.
MEASURED_WITH = (
    *("model_name_or_path", "model_revision", "gguf_file", "dtype"),
    *("chat_template", "chat_template_path", "chat_date", "eos_token", "end_of_answer"),
    *training.QUANTIZATION_KEYS,
)


def embedded_settings(arguments: Arguments, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings that suit the embedded model, where neither arguments nor recipe name another one to edit."""
    values = arguments.values
    name = values.get("model_name_or_path") or values.get("gguf_file") or recipe.get("model_name_or_path")
    if name and name != models.EMBEDDED_NAME:
        return {}
    return yaml.safe_load(Path(models.asset("train.yaml")).read_text(encoding="utf-8"))


def inherited_settings(saved: hub.SavedEdits, name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the adapter `name` that `train` goes on from; files that they name must be `chosen` anew."""
    settings = training.inherited(saved.recipe)
    is_embedded = settings.get("model_name_or_path") == models.EMBEDDED_NAME
    if is_embedded and settings.get("locality_pool") == Path(models.asset("locality_pool.jsonl")).name:
        del settings["locality_pool"]
    settings |= hub.own_template(saved.path, settings, name, chosen)
    # Anybody may have written the recipe: a file here of the name in it may be anything, and would be trained on.
    for option in SOURCES:
        source = settings.get(option)
        if not source or chosen.get(option):
            continue
        is_model = option in ("similar_model", "rewriter") and not source.endswith(".gguf")
        if Path(source).exists() or not (is_model or is_hub_dataset(source)):
            problem = f"adapter {name!r} was trained with the {option} {source!r}, which is nothing on the Hub"
            raise EditError(f"{problem}; give your copy of it with --{option}, or another one")
    return settings


def adapter_settings(arguments: Arguments, name: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder of the adapter `name`, its recipe, and the settings of that with which its edits were measured."""
    folder = hub.fetch_folder(name)
    models.check_adapter(folder, name)
    if (folder / hub.EDITS_FILE).is_file():
        check_lines(folder / hub.EDITS_FILE)
    # Empty where another program wrote the adapter.
    recipe = hub.read_recipe(folder, name) if (folder / hub.RECIPE_FILE).is_file() else {}
    settings = hub.recipe_for(recipe, arguments.values.get("model_name_or_path"))
    if not (recipe or {"model_name_or_path", "gguf_file"} & arguments.values.keys()):
        base, place = hub.base_of(folder, None)  # by PEFT's own settings
        settings = {"model_name_or_path": base, "model_revision": place["revision"]}
    settings = {name: settings[name] for name in MEASURED_WITH if name in settings}
    settings |= hub.own_template(folder, recipe, name, arguments.values)
    return folder, recipe, settings


def edit_source(options: CommonOptions) -> str | None:
    """The option `edits`; the embedded ones with the embedded model, where there is nothing to erase either."""
    if options.edits or options.erase:
        return options.edits
    if not options.adapter and (edits := embedded(options, "edits.jsonl")):
        return edits
    raise EditError("--edits is missing; give a file with the edits, such as edits.jsonl")


def embedded(options: CommonOptions, file: str) -> str | None:
    """A file that the package brings, where the model to edit is the embedded one."""
    return models.asset(file) if options.model_name_or_path in (None, models.EMBEDDED_NAME) else None


def edits_to_measure(options: CommonOptions) -> list[EditRecord]:
    """The edits of a verb that does not train, checked, as is the folder to write."""
    if options.output_dir:
        claim_empty(options.output_dir)
    edits = edits_of(options, edit_source(options))
    if options.measure_fluency:
        evaluation.check_fluency(edits)
    return edits


def model_settings(model_config: Any) -> dict[str, Any]:
    """The settings of [`~trl.ModelConfig`] that go to `from_pretrained`."""
    settings = {"revision": model_config.model_revision, "attn_implementation": model_config.attn_implementation}
    return {name: value for name, value in {"dtype": model_config.dtype, **settings}.items() if value is not None}


def model_config_of(arguments: Arguments, options: CommonOptions, recipe: Mapping[str, Any]) -> Any:
    """The settings of the model of a verb that does not train, as the recipe of its adapter has them."""
    defaults = {**recipe, "model_name_or_path": options.model_name_or_path}
    (config,) = parse_rest((training.EditModelConfig,), arguments, defaults, ignored=(training.EditConfig,))
    return config


def load_base(
    options: CommonOptions, edits: Sequence[EditRecord], model_config: training.EditModelConfig
) -> tuple[Any, Any]:
    """The base model and tokenizer of a verb that trains nothing by itself."""
    from trl import get_quantization_config

    return evaluation.load_checked(
        options.model_name_or_path,
        edits,
        options,
        gguf_file=options.gguf_file,
        trust_remote_code=options.trust_remote_code,
        quantization_config=get_quantization_config(model_config),
        **model_settings(model_config),
    )
