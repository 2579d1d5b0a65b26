"""The verbs `train`, `evaluate` and `augment`: options to calls, and what they print."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

from hf_ftedit.cli.arguments import parsed, resume_wish
from hf_ftedit.cli.console import is_first_process, without_home, written_to
from hf_ftedit.cli.inputs import (
    adapter_recipe,
    base_model,
    checked_input,
    embedded_recipe,
    model_settings,
    recipe_beside,
)
from hf_ftedit.data import read_texts
from hf_ftedit.errors import EditError
from hf_ftedit.models import EMBEDDED_NAME
from hf_ftedit.options import PROVENANCE


def train(args: list[str]) -> None:
    """Edit, measure before and after, write the adapter folder."""
    options, edits, pool = checked_input("train", args)
    resume = resume_wish(options.resume_from_checkpoint)
    config, model_config = _training_settings(options, args)
    from trl import get_peft_config, get_quantization_config

    from hf_ftedit.evaluation import edits_text, results_table
    from hf_ftedit.training import EditTrainer, asked_settings, check_finished_with, is_finished, recipe_of

    if resume and is_finished(options.output_dir):
        check_finished_with(options.output_dir, edits, asked_settings(config, model_config))
        if is_first_process():
            print(f"{without_home(options.output_dir)} is complete: nothing to resume; hf-ftedit push shares it")
        return
    trainer = EditTrainer(
        model=options.model_name_or_path or EMBEDDED_NAME,
        args=config,
        train_dataset=edits or None,
        locality_pool=pool,
        peft_config=None if config.full_finetune else get_peft_config(model_config),
        quantization_config=get_quantization_config(model_config),
    )
    trainer.given_in_python.clear()  # the options tell where everything came from
    rows: Any = trainer.train_dataset
    trainer.accelerator.print(f"{edits_text(len(trainer.edit_records))}, {len(rows)} training rows")
    if not trainer.is_fsdp_enabled:  # which spreads the weights when training begins
        trainer.score_edits(edited=False)
    trainer.train(resume_from_checkpoint=resume)
    with nullcontext() if config.merge_into_base else trainer.saving_when_stopped():
        trainer.write_folder()
    trainer.accelerator.print(results_table(trainer.edit_results(), recipe_of(trainer)))
    what = "model" if config.full_finetune or config.merge_into_base else "adapter"
    trainer.accelerator.print(written_to(str(config.output_dir), f"the {what}, its model card, edits and results"))
    if config.push_to_hub:  # what is on disk was told before what may fail
        trainer.push_to_hub()


def _training_settings(options: Any, args: list[str]) -> tuple[Any, Any]:
    """The trainer's settings and the model's."""
    from hf_ftedit.training import EditConfig, EditModelConfig

    defaults = {"disable_tqdm": not sys.stderr.isatty(), **embedded_recipe(options), **adapter_recipe(options)}
    config, model_config = parsed((EditConfig, EditModelConfig), args, defaults=defaults)
    config.model_init_kwargs = {**model_settings(model_config), **(config.model_init_kwargs or {})}
    config.full_finetune = config.full_finetune or not model_config.use_peft
    config.enable_jit_checkpoint = False  # SIGTERM saves in any case, and then ends the process
    return config, model_config


def evaluate(args: list[str]) -> None:
    """Measure a model, with its adapter off and on where there is one."""
    options, edits, _ = checked_input("evaluate", args)
    texts = read_texts(options.perplexity_texts) if options.perplexity_texts else []
    from hf_ftedit.evaluation import check_tasks, measure, results_of, results_table
    from hf_ftedit.hub import check_base, fetch_adapter, save_results_folder
    from hf_ftedit.models import load_adapter, process_state, unedited

    if options.tasks:
        check_tasks(options.tasks, options.tasks_path)
    folder = fetch_adapter(options.adapter) if options.adapter else None
    recipe = recipe_beside(folder, options.adapter) if folder else {}
    asked = base_model(options, edits, args)
    if folder:
        check_base(asked[0], recipe.get(PROVENANCE) or {}, options.adapter)
        asked = load_adapter(asked[0], folder), asked[1]
    measured, tasks = {}, {}
    for when in ("before", "after") if options.adapter else ("before",):
        settings: dict[str, Any] = {"seed": options.seed, "desc": f"Measuring {when}"}
        with unedited(asked[0]) if when == "before" else nullcontext():
            measured[when] = measure(*asked, edits, options, texts=texts, **settings)
            edits = measured[when].records  # with the unedited model's answers, to which the edited one is held
            tasks[when] = _task_scores(*asked, options)
    results = {**results_of(measured), **_task_results(tasks)}
    process = process_state()
    process.wait_for_everyone()
    if not process.is_main_process:
        return
    print(results_table(results, recipe))
    if options.output_dir:
        save_results_folder(options.output_dir, results, {when: found.predictions for when, found in measured.items()})
        print(written_to(options.output_dir, "eval_results.json and predictions"))


def augment(args: list[str]) -> None:
    """Write the training rows and the probes as a dataset."""
    options, edits, pool = checked_input("augment", args)
    if options.output_dir is None:
        raise EditError("--output_dir is missing; give the folder to write the dataset to")
    from hf_ftedit.augmentation import EditDatasetBuilder
    from hf_ftedit.hub import save_dataset_folder
    from hf_ftedit.models import in_turns

    model, tokenizer = base_model(options, edits, args)
    builder = EditDatasetBuilder(
        edits,
        model,
        tokenizer,
        locality_pool=pool,
        options=options,
        chat_template=options.chat_template,
        seed=options.seed,
    )
    builder.check_same()
    in_turns(builder.download_and_prepare)
    if not is_first_process():
        return
    dataset = builder.as_dataset()
    save_dataset_folder(options.output_dir, dataset, builder.settings)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in dataset.items())
    print(written_to(options.output_dir, f"{sizes} rows"))


def _task_scores(model: Any, tokenizer: Any, options: Any) -> dict[str, Any]:
    """Scores of the tasks that are asked for, computed by one process."""
    from hf_ftedit.evaluation import run_tasks
    from hf_ftedit.models import process_state

    if not options.tasks or not process_state().is_main_process:
        return {}
    return run_tasks(
        model,
        tokenizer,
        options.tasks,
        include_path=options.tasks_path,
        limit=options.tasks_limit,
        num_fewshot=options.num_fewshot,
        chat_template=options.chat_template,
        seed=options.seed,
    )


def _task_results(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from hf_ftedit.evaluation import task_changes

    rows = task_changes(scores["before"], scores.get("after", scores["before"]))
    if "after" not in scores:
        rows = [{**row, "after": None, "difference": None, "difference_stderr": None} for row in rows]
    return {"tasks": rows} if rows else {}
