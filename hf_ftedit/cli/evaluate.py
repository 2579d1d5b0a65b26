"""`hf-ftedit evaluate`: measure a model on the probes of edits, with its adapter off and on where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from hf_ftedit.cli.arguments import options_of, read_arguments
from hf_ftedit.cli.console import hide_brief_bars, written_to
from hf_ftedit.cli.resolve import edits_to_measure, load_base, open_adapter
from hf_ftedit.data import read_texts
from hf_ftedit.files import require_empty
from hf_ftedit.options import PROVENANCE


def run(argv: Sequence[str]) -> None:
    """Measure, write the scores and predictions, print the scores."""
    arguments = read_arguments("evaluate", argv)
    adapter = arguments.values.get("adapter")
    folder, recipe = open_adapter(adapter) if adapter else (None, {})
    options = options_of("evaluate", arguments, _measured_with(recipe))
    if options.output_dir:
        require_empty(options.output_dir)
    edits = edits_to_measure(options)
    texts = read_texts(options.perplexity_texts) if options.perplexity_texts else []
    hide_brief_bars(len(edits))
    from hf_ftedit.evaluation import check_tasks, measure, results_of, results_table, save_results_folder
    from hf_ftedit.hub import check_base
    from hf_ftedit.models import load_adapter, process_state, unedited

    if options.tasks:
        check_tasks(options.tasks, options.tasks_path)
    model, tokenizer = load_base(arguments, options, edits, _measured_with(recipe))
    if folder:
        check_base(model, recipe.get(PROVENANCE) or {}, options.adapter)
        model = load_adapter(model, folder)
    measured = {}
    for when in ("before", "after") if folder else ("before",):
        with unedited(model) if when == "before" else nullcontext():
            measured[when] = measure(
                model, tokenizer, edits, options, texts=texts, seed=options.seed, desc=f"Measuring {when}"
            )
            # With the unedited model's answers, to which the edited one is held.
            edits = measured[when].records
    results = results_of(measured)
    if not process_state().is_main_process:
        return
    if options.tasks:
        results["tasks"] = _task_changes(model, tokenizer, options)
    # Written before they are printed: a closed terminal must not cost an hour of measuring.
    if options.output_dir:
        save_results_folder(options.output_dir, results, {when: each.predictions for when, each in measured.items()})
    print(results_table(results, recipe))
    if options.output_dir:
        print(written_to(options.output_dir, "eval_results.json and predictions"))


def _measured_with(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings with which an adapter's edits were measured: model, precision and chat template."""
    from hf_ftedit.training import QUANTIZATION_KEYS

    names = ("model_name_or_path", "model_revision", "chat_template", "dtype", *QUANTIZATION_KEYS)
    return {name: recipe[name] for name in names if name in recipe} if recipe else {}


def _task_changes(model: Any, tokenizer: Any, options: Any) -> list[dict[str, Any]]:
    """Scores in tasks of lm-evaluation-harness without and with the adapter."""
    from hf_ftedit.evaluation import compare_tasks

    return compare_tasks(
        model,
        tokenizer,
        options.tasks,
        include_path=options.tasks_path,
        limit=options.tasks_limit,
        num_fewshot=options.num_fewshot,
        apply_chat_template=options.chat_template,
        seed=options.seed,
    )
