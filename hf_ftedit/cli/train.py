"""`hf-ftedit train`: edit a model, measure it before and after, write the adapter folder."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hf_ftedit import evaluation, hub, models, training
from hf_ftedit.cli.arguments import Arguments, option_name, parse_rest, read_arguments
from hf_ftedit.cli.console import claim_output, hide_brief_bars, is_first_process, without_home, written_to
from hf_ftedit.cli.resolve import edit_source, embedded, embedded_settings, inherited_settings, model_settings
from hf_ftedit.data import EditRecord, statement_of
from hf_ftedit.errors import EditError, refusals_of_libraries
from hf_ftedit.text import counted, visible

# Settings by which the unedited model is measured.
MEASURING = (
    *("protocol", "predict_with_generate", "measure_fluency", "end_of_answer", "eval_tokens_per_batch"),
    *("chat_template", "chat_template_path", "chat_date", "eos_token"),
)


def run(argv: Sequence[str]) -> None:
    """Train, and print what came of it."""
    trained(argv)


def trained(argv: Sequence[str]) -> dict[str, Any]:
    """
    Check everything that needs no torch, then train, write the folder, print the scores, and push.

    Returns the `results`, the number of `rows` and the `train_seconds`; nothing where there was nothing to resume.
    """
    arguments = read_arguments("train", argv)
    defaults, options, adapter = options_of(arguments)
    # Before the edits: of two mistakes, the one that would overwrite something comes first.
    training.check_output_dir(options.output_dir, options.resume)
    task = task_of(options, adapter)
    if options.resume and training.is_finished(options.output_dir):
        _check_finished(arguments, {**defaults, **vars(options)}, task.edits)
        if is_first_process():
            print(f"{without_home(options.output_dir)} is complete: nothing to resume; hf-ftedit push shares it")
        return {}
    claim_output(options.output_dir)
    hide_brief_bars(len(task.edits))
    config, model_config = settings_of(arguments, {**defaults, **vars(options)})
    if task.continuation and not task.continuation.is_anew:
        if difference := _change(arguments, training.LORA_SETTINGS, adapter.recipe, config, model_config):
            name = task.continuation.name
            raise EditError(f"adapter {name!r} goes on with the LoRA that it has: {difference}; leave it out")
    return _train(task, config, model_config, options.resume)


def _check_finished(arguments: Arguments, defaults: Mapping[str, Any], edits: Sequence[EditRecord]) -> None:
    """Raise [`~hf_ftedit.EditError`] where a finished folder holds other edits, or was made with other settings."""
    folder = str(defaults["output_dir"])
    saved = hub.read_edit_folder(folder)
    then, now = (sorted(map(statement_of, part)) for part in (saved.records, edits))
    difference: str | None = "its edits are others"
    if then == now:
        difference = _change(arguments, training.WEIGHING, saved.recipe, *settings_of(arguments, defaults))
    if difference:
        remedy = "give the original command, or another --output_dir"
        raise EditError(f"output_dir {folder!r} was finished by another command: {difference}; {remedy}")


def _change(arguments: Arguments, names: set[str], recipe: Mapping[str, Any], *configs: Any) -> str | None:
    """What of the settings `names` a command states otherwise than a recipe; those that it leaves out fit."""
    flags = (option_name(flag) for flag in arguments.flags if flag.startswith("--"))
    for name in sorted({*arguments.values, *arguments.config, *flags} & names):
        old, new = recipe.get(name), next((getattr(each, name) for each in configs if hasattr(each, name)), None)
        new = models.public_name(str(new)) if name == "model_name_or_path" else getattr(new, "value", new)
        if name == "lora_target_modules":
            new = [new] if isinstance(new, str) else sorted(new or ())
        if old != new:
            return f"{name} was {old!r}, and is {new!r} now"
    return None


def options_of(arguments: Arguments) -> tuple[dict[str, Any], Any, Any]:
    """What the adapter to go on from and the embedded model set, the options, and that adapter's edits."""
    name = arguments.values.get("adapter")
    adapter = hub.open_edits(name) if name else None
    recipe = inherited_settings(adapter, str(name), arguments.values) if adapter else {}
    recipe = hub.recipe_for(recipe, arguments.values.get("model_name_or_path"))
    defaults = {"disable_tqdm": not sys.stderr.isatty(), **embedded_settings(arguments, recipe), **recipe}
    return defaults, arguments.options(defaults), adapter


def task_of(options: Any, adapter: Any) -> Any:
    """The edits of the options, and the facts that stay."""
    pool = options.locality_pool or embedded(options, "locality_pool.jsonl")
    edits = options.edits if adapter else edit_source(options)
    return training.read_task(options, edits, locality_pool=pool, adapter=adapter)


def settings_of(arguments: Arguments, defaults: Mapping[str, Any]) -> tuple[Any, Any]:
    """The trainer's settings and the model's."""
    if defaults["chat_template"]:
        defaults = {**training.CHAT_LORA, **defaults}
    if defaults["full_finetune"]:
        # Of most weights a step is less than bfloat16's distance to the next number: they would stay as they are.
        defaults = {"dtype": "float32", **defaults}
    config, model_config = parse_rest((training.EditConfig, training.EditModelConfig), arguments, defaults)
    named = {"gguf_file": defaults["gguf_file"], **model_settings(model_config)}
    if not isinstance(config.model_init_kwargs, str):  # a text is no JSON, which the trainer says
        config.model_init_kwargs = {**named, **(config.model_init_kwargs or {})}
    config.full_finetune = config.full_finetune or not model_config.use_peft
    # transformers' own handler of SIGTERM saves before the optimizer's step: a resumed run would differ.
    if config.enable_jit_checkpoint:
        raise EditError("enable_jit_checkpoint: SIGTERM saves a checkpoint without it; leave it out")
    return config, model_config


def _train(task: Any, config: Any, model_config: Any, resume: bool | str) -> dict[str, Any]:
    from trl import get_peft_config, get_quantization_config

    settings: dict[str, Any] = {"model": model_config.model_name_or_path or models.EMBEDDED_NAME, "args": config}
    with refusals_of_libraries():
        has_adapter = task.continuation and not task.continuation.is_anew
        settings["peft_config"] = None if config.full_finetune or has_adapter else get_peft_config(model_config)
        settings["quantization_config"] = get_quantization_config(model_config)
    trainer = training.EditTrainer(train_dataset=task, **settings)
    rows: Any = trainer.train_dataset
    trainer.accelerator.print(f"{counted(len(task.measured), 'edit')}, {counted(len(rows), 'training row')}")
    for edit in trainer.task.edits:
        if edit.erase:
            old, new = edit.target_true or "", edit.target_new
            trainer.accelerator.print(visible(f'to erase: {edit.prompt} "{old}"; to say instead: "{new}"'))
    # FSDP spreads the weights when training begins; before, one device may not hold the model.
    if not trainer.is_fsdp_enabled:
        _measure_unedited(trainer)
    seconds = trainer.train(resume_from_checkpoint=resume).metrics["train_runtime"]
    results = trainer.write_folder()
    trainer.accelerator.print(evaluation.results_table(results, trainer.recipe))
    if results["after"]["whole_answers"]:
        before, after = (trainer.predict_edits(edited=edited) for edited in (False, True))
        trainer.accelerator.print(f"\n{evaluation.before_after_text(before, after)}\n")
    kind = "model" if config.full_finetune else "adapter"
    trainer.accelerator.print(written_to(str(config.output_dir), f"the {kind}, its model card, edits and results"))
    # Last: the folder is complete and its results are printed, whatever the Hub does.
    if config.push_to_hub:
        trainer.push_to_hub()
    return {"results": results, "rows": len(rows), "train_seconds": seconds}


def _measure_unedited(trainer: Any) -> None:
    """Measure the unedited model, or take what an earlier run of a sweep measured of it on the same edits."""
    args, task = trainer.args, trainer.task
    settings = [getattr(args, name) for name in MEASURING] + [args.seed if args.measure_fluency else None]

    def measured() -> evaluation.Measurement:
        trainer.score_edits(edited=False)
        return trainer.measurements.before

    with models.unedited(trainer.model) as model:
        question = [settings, task.measured, task.texts, task.known]
        trainer.measurements.before = models.once(model, question, measured)
