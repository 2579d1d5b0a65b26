"""`hf-ftedit evaluate`: measure a model on the probes of edits, with its adapter off and on where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import hide_brief_bars, written_to
from hf_ftedit.cli.resolve import edits_to_measure, load_base
from hf_ftedit.data import EditRecord, read_texts
from hf_ftedit.hub import RECIPE_FILE, check_base, fetch_adapter, own_template, read_recipe, recipe_for
from hf_ftedit.options import PROVENANCE
from hf_ftedit.training import QUANTIZATION_KEYS

if TYPE_CHECKING:
    from hf_ftedit.evaluation import Measurement

# Settings of an adapter's recipe with which its edits were measured.
MEASURED_WITH = (
    *("model_name_or_path", "model_revision", "gguf_file", "dtype"),
    *("chat_template", "chat_template_path", "chat_date", "eos_token", "end_of_answer"),
    *QUANTIZATION_KEYS,
)


def run(argv: Sequence[str]) -> None:
    """Measure, write the scores and predictions, print the scores."""
    arguments = read_arguments("evaluate", argv)
    adapter = arguments.values.get("adapter")
    folder = fetch_adapter(adapter) if adapter else None
    # Empty where another program wrote the adapter.
    recipe = read_recipe(folder, str(adapter)) if folder and (folder / RECIPE_FILE).is_file() else {}
    settings = recipe_for(recipe, arguments.values.get("model_name_or_path"))
    settings = {name: settings[name] for name in MEASURED_WITH if name in settings}
    if folder and not arguments.values.get("chat_template_path"):
        is_trusted = bool(arguments.values.get("trust_remote_code"))
        settings |= own_template(folder, recipe, str(adapter), is_trusted=is_trusted)
    options = arguments.options(settings)
    edits = edits_to_measure(options)
    texts = read_texts(options.perplexity_texts) if options.perplexity_texts else []
    hide_brief_bars(len(edits))
    from hf_ftedit.evaluation import (
        before_after_text,
        check_tasks,
        compare_tasks,
        results_of,
        results_table,
        save_results_folder,
    )
    from hf_ftedit.models import load_adapter, process_state

    if options.tasks:
        check_tasks(options.tasks, options.tasks_path)
    model, tokenizer = load_base(arguments, options, edits, settings)
    if folder:
        check_base(model, recipe.get(PROVENANCE) or {}, options.adapter)
        model = load_adapter(model, folder)
    measured = _measured(model, tokenizer, edits, options, texts)
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
    if len(measured) == 2 and results["after"]["whole_answers"]:
        print(f"\n{before_after_text(measured['before'].predictions, measured['after'].predictions)}\n")
    if options.output_dir:
        print(written_to(options.output_dir, "eval_results.json and predictions"))


def _measured(
    model: Any, tokenizer: Any, edits: Sequence[EditRecord], options: Any, texts: Sequence[str]
) -> dict[str, Measurement]:
    """The measurement of the model, or those with its adapter switched off and on."""
    from hf_ftedit.evaluation import measure
    from hf_ftedit.models import unedited

    settings: dict[str, Any] = {"texts": texts, "seed": options.seed}
    if not options.adapter:
        return {"before": measure(model, tokenizer, edits, options, drift=False, desc="Measuring", **settings)}
    with unedited(model):
        before = measure(model, tokenizer, edits, options, desc="Measuring before", **settings)
    # With the unedited model's answers, to which the edited one is held.
    after = measure(model, tokenizer, before.records, options, before=before, desc="Measuring after", **settings)
    return {"before": before, "after": after}
