"""`hf-ftedit evaluate`: measure a model on the probes of edits, with its adapter off and on where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import hide_brief_bars, written_to
from hf_ftedit.cli.resolve import edits_to_measure, load_base
from hf_ftedit.data import read_texts
from hf_ftedit.hub import RECIPE_FILE, check_base, fetch_adapter, read_recipe, recipe_for
from hf_ftedit.options import PROVENANCE
from hf_ftedit.training import QUANTIZATION_KEYS

# Settings of an adapter's recipe with which its edits were measured.
MEASURED_WITH = ("model_name_or_path", "model_revision", "gguf_file", "chat_template", "dtype", *QUANTIZATION_KEYS)


def run(argv: Sequence[str]) -> None:
    """Measure, write the scores and predictions, print the scores."""
    arguments = read_arguments("evaluate", argv)
    adapter = arguments.values.get("adapter")
    folder = fetch_adapter(adapter) if adapter else None
    # Empty where another program wrote the adapter.
    recipe = read_recipe(folder, str(adapter)) if folder and (folder / RECIPE_FILE).is_file() else {}
    settings = recipe_for(recipe, arguments.values.get("model_name_or_path"))
    settings = {name: settings[name] for name in MEASURED_WITH if name in settings}
    options = arguments.options(settings)
    edits = edits_to_measure(options)
    texts = read_texts(options.perplexity_texts) if options.perplexity_texts else []
    hide_brief_bars(len(edits))
    from hf_ftedit.evaluation import (
        check_tasks,
        compare_tasks,
        measure,
        results_of,
        results_table,
        save_results_folder,
    )
    from hf_ftedit.models import load_adapter, process_state, unedited

    if options.tasks:
        check_tasks(options.tasks, options.tasks_path)
    model, tokenizer = load_base(arguments, options, edits, settings)
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
        results["tasks"] = compare_tasks(
            model,
            tokenizer,
            options.tasks,
            include_path=options.tasks_path,
            limit=options.tasks_limit,
            num_fewshot=options.num_fewshot,
            apply_chat_template=options.chat_template,
            seed=options.seed,
        )
    # Written before they are printed: a closed terminal must not cost an hour of measuring.
    if options.output_dir:
        save_results_folder(options.output_dir, results, {when: each.predictions for when, each in measured.items()})
    print(results_table(results, recipe))
    if options.output_dir:
        print(written_to(options.output_dir, "eval_results.json and predictions"))
