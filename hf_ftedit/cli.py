"""Command line: `hf-ftedit train`, `evaluate` and `augment`; `push`, `verify` and `merge` are in `sharing`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_ftedit.arguments import OPTIONS, CommonOptions, check_known, help_text, parsed, resume_wish, with_words
from hf_ftedit.console import is_first_process, without_home, written_to
from hf_ftedit.disk import disk_trouble
from hf_ftedit.loading import EMBEDDED_NAME, asset
from hf_ftedit.options import RECORD
from hf_ftedit.readers import read_edits, read_facts
from hf_ftedit.records import EditError, EditRecord, Fact
from hf_ftedit.sharing import merge, push, verify
from hf_ftedit.sources import is_hub_dataset, read_texts
from hf_ftedit.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from trl import ModelConfig

USAGE = """\
usage: hf-ftedit VERB [--config FILE.yaml] [--OPTION VALUE ...]

Edit facts in causal language models by fine-tuning.

verbs:
  train      edit a model, measure it before and after, write the adapter folder
             (without options: the embedded model and edits, in about a minute)
  evaluate   measure a model, or a model with an adapter, on the probes of edits
  augment    write the training rows of edits, and their probes, as a dataset
  push       push an adapter folder to the Hub, with its card
  verify     measure published edits again and compare with what they claim
  merge      combine several edit adapters, or put one into its base model

hf-ftedit VERB --help lists the options of a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one verb.

    Args:
        argv (`Sequence[str]`, *optional*):
            Arguments without the program's name; the process's by default.

    Returns:
        `int`: exit code: 0; 1 where `verify` finds a claim that does not hold; 2 for bad input, or a disk that is
        full, with one line on standard error that says what to do; 130 or 143 after Ctrl-C or SIGTERM.
    """
    verb, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if verb in ("-h", "--help"):
            print(USAGE)
        elif verb == "--version":
            from hf_ftedit import __version__

            print(__version__)
        elif verb not in VERBS:
            raise EditError(f"unknown verb {verb!r}; choose one of {', '.join(VERBS)}")
        elif {"-h", "--help"} & set(args):
            print(help_text(verb))
        else:
            args = with_words(verb, args)
            _quiet()
            with stoppable():
                return VERBS[verb](args) or 0
    except EditError as error:
        if not is_first_process():
            time.sleep(5)  # where the first one tells the same, the launcher ends this one meanwhile
        return _told(str(error), 2)
    except Stopped as stopped:
        go_on = "; add --resume_from_checkpoint to go on" if verb == "train" and not stopped.done else ""
        return _told(f"{stopped}{go_on}", stopped.exit_code) if is_first_process() else stopped.exit_code
    except Exception as error:
        if reason := disk_trouble(error):
            name = getattr(error, "filename", None) or "a file of the run"
            return _told(f"{name} cannot be written or read ({reason}); free some space, or see whose it is", 2)
        raise
    return 0


def _told(line: str, code: int) -> int:
    print(f"hf-ftedit: {without_home(line)}", file=sys.stderr)
    return code


def train(args: list[str]) -> None:
    """Edit, measure before and after, write the adapter folder."""
    from hf_ftedit.checkpoints import check_finished_with, is_finished
    from hf_ftedit.folders import UNFINISHED

    options, edits, pool = checked_input("train", args)
    resume = resume_wish(options.resume_from_checkpoint)
    journal = Path(options.output_dir) / UNFINISHED
    from trl import get_peft_config, get_quantization_config

    from hf_ftedit.config import EditConfig, EditModelConfig
    from hf_ftedit.recipe import asked_settings, recipe_of
    from hf_ftedit.report import results_table
    from hf_ftedit.score_text import edits_text
    from hf_ftedit.trainer import EditTrainer

    defaults = {"disable_tqdm": not sys.stderr.isatty(), **embedded_recipe(options), **adapter_recipe(options)}
    config, model_config = parsed((EditConfig, EditModelConfig), args, defaults=defaults)
    config.model_init_kwargs = {**model_settings(model_config), **(config.model_init_kwargs or {})}
    config.full_finetune = config.full_finetune or not model_config.use_peft
    config.enable_jit_checkpoint = False  # SIGTERM saves in any case, and then ends the process
    if resume and is_finished(options.output_dir):
        check_finished_with(options.output_dir, edits, asked_settings(config, model_config))
        if is_first_process():
            shutil.rmtree(journal, ignore_errors=True)
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
    trainer.journal = journal
    rows: Any = trainer.train_dataset
    trainer.accelerator.print(f"{edits_text(len(trainer.edit_records))}, {len(rows)} training rows")
    if not trainer.is_fsdp_enabled:  # which spreads the weights when training begins
        trainer.score_edits(edited=False)
    trainer.train(resume_from_checkpoint=resume)
    with nullcontext() if config.merge_into_base else trainer.saving_when_stopped():
        trainer.write_folder()
    if is_first_process():
        shutil.rmtree(journal, ignore_errors=True)
    trainer.accelerator.print(results_table(trainer.edit_results(), recipe_of(trainer)))
    what = "model" if config.full_finetune or config.merge_into_base else "adapter"
    trainer.accelerator.print(written_to(str(config.output_dir), f"the {what}, its model card, edits and results"))
    if config.push_to_hub:  # what is on disk was told before what may fail
        trainer.push_to_hub()


def evaluate(args: list[str]) -> None:
    """Measure a model, with its adapter off and on where there is one."""
    options, edits, _ = checked_input("evaluate", args)
    texts = read_texts(options.perplexity_texts) if options.perplexity_texts else []
    from hf_ftedit.evaluation import fill_neighborhood_targets, measure, results_of
    from hf_ftedit.folders import UNFINISHED, save_results_folder
    from hf_ftedit.harness import check_tasks
    from hf_ftedit.loading import load_adapter, unedited
    from hf_ftedit.processes import process_state
    from hf_ftedit.published import check_base, fetch_adapter
    from hf_ftedit.report import results_table

    if options.tasks:
        check_tasks(options.tasks, options.tasks_path)
    folder = fetch_adapter(options.adapter) if options.adapter else None
    recipe = recipe_beside(folder, options.adapter) if folder else {}
    asked = base_model(options, edits, args)
    if folder:
        check_base(asked[0], recipe.get(RECORD) or {}, options.adapter)
        asked = load_adapter(asked[0], folder), asked[1]
    how: dict[str, Any] = {"chat_template": options.chat_template, "tokens_per_batch": options.eval_tokens_per_batch}
    measured, tasks = {}, {}
    for when in ("before", "after") if options.adapter else ("before",):
        journal = Path(options.output_dir) / UNFINISHED / f"{when}.jsonl" if options.output_dir else None
        settings: dict[str, Any] = {"seed": options.seed, "journal": journal, "desc": f"Measuring {when}"}
        with unedited(asked[0]) if when == "before" else nullcontext():
            edits = fill_neighborhood_targets(*asked, edits, **how)
            measured[when] = measure(*asked, edits, options, texts=texts, **settings)
            tasks[when] = _task_scores(*asked, options)
    results = {**results_of(measured), **_task_results(tasks)}
    process = process_state()
    process.wait_for_everyone()  # before the journals of all are removed
    if not process.is_main_process:
        return
    print(results_table(results, recipe))
    if options.output_dir:
        save_results_folder(options.output_dir, results, {when: found.predictions for when, found in measured.items()})
        print(written_to(options.output_dir, "eval_results.json and predictions"))


def _task_scores(model: Any, tokenizer: Any, options: Any) -> dict[str, Any]:
    """Scores of the tasks that are asked for, computed by one process."""
    from hf_ftedit.harness import run_tasks
    from hf_ftedit.processes import process_state

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
    from hf_ftedit.harness import task_changes

    rows = task_changes(scores["before"], scores.get("after", scores["before"]))
    if "after" not in scores:
        rows = [{**row, "after": None, "difference": None, "difference_stderr": None} for row in rows]
    return {"tasks": rows} if rows else {}


def recipe_beside(folder: Path, name: str) -> dict[str, Any]:
    """The settings that an adapter folder holds; nothing where there are none. Raises as `read_recipe`."""
    from hf_ftedit.edit_folder import RECIPE_FILE, read_recipe

    return read_recipe(folder, name) if (folder / RECIPE_FILE).is_file() else {}


def augment(args: list[str]) -> None:
    """Write the training rows and the probes as a dataset."""
    options, edits, pool = checked_input("augment", args)
    if options.output_dir is None:
        raise EditError("--output_dir is missing; give the folder to write the dataset to")
    from hf_ftedit.dataset import EditDatasetBuilder
    from hf_ftedit.folders import save_dataset_folder
    from hf_ftedit.processes import in_turns

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
    from hf_ftedit.checkpoints import require_place
    from hf_ftedit.folders import require_empty

    if options.output_dir and verb == "train":
        require_place(options.output_dir, resume_wish(options.resume_from_checkpoint))
    elif options.output_dir:
        require_empty(options.output_dir, resume=getattr(options, "resume", False))
    edits = []
    if options.edits:
        edits = read_edits(options.edits, options.format, options.max_edits, skip_invalid=options.skip_invalid)
    if options.measure_fluency and edits:
        from hf_ftedit.fluency import check_fluency

        check_fluency(edits)
    if len(edits) < 1000 or not sys.stderr.isatty():  # bars that flash by tell nobody anything, and fill log files
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    return options, edits, read_facts(options.locality_pool) if options.locality_pool else None


def adapter_recipe(options: Any) -> dict[str, Any]:
    """Settings of the adapter that `train` goes on from; its pool of facts must be here, or be one of the Hub."""
    if options.adapter is None:
        return {}
    from hf_ftedit.published import open_edits
    from hf_ftedit.recipe import inherited

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
    from hf_ftedit.published import fetch_adapter
    from hf_ftedit.recipe import QUANTIZATION_KEYS

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

    from hf_ftedit.config import EditConfig, EditModelConfig
    from hf_ftedit.evaluation import load_checked

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


def _quiet() -> None:
    """Silence what a user cannot act on: deprecations inside libraries, and their remarks on what they align."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "Cannot enable progress bars")  # `Trainer`, when it is to push
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars of downloads and loading fill log files
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it speaks up where it is installed and not used
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_ftedit").setLevel(logging.INFO)


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "augment": augment,
    "push": push,
    "verify": verify,
    "merge": merge,
}
