"""`hf-ftedit evaluate`: measure a model on the probes of edits, with its adapter off and on where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_ftedit import evaluation, hub, models
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import hide_brief_bars, written_to
from hf_ftedit.cli.resolve import adapter_settings, edits_to_measure, load_base, model_config_of
from hf_ftedit.data import EditRecord, facts_about_others, read_facts, read_named, read_texts
from hf_ftedit.options import PROVENANCE


def run(argv: Sequence[str]) -> None:
    """Measure, write the scores and predictions, print the scores."""
    arguments = read_arguments("evaluate", argv)
    adapter = arguments.values.get("adapter")
    folder, recipe, settings = adapter_settings(arguments, adapter) if adapter else (None, {}, {})
    # An adapter is measured on its own edits, where no others are given.
    own = folder / hub.EDITS_FILE if folder and not {"edits", "erase"} & arguments.values.keys() else None
    if own and recipe:
        hub.check_unchanged(own.parent, recipe[PROVENANCE]["files"], str(adapter))
    options = arguments.options({**settings, **({"edits": str(own)} if own and own.is_file() else {})})
    edits = edits_to_measure(options)
    texts = read_named("perplexity_texts", read_texts, options.perplexity_texts)
    known = facts_about_others(read_named("known_facts", read_facts, options.known_facts), edits)
    hide_brief_bars(len(edits))
    if options.tasks:
        evaluation.check_tasks(options.tasks, options.tasks_path)
    model, tokenizer = load_base(options, edits, model_config_of(arguments, options, settings))
    if folder:
        hub.check_base(model, recipe, options.adapter)
        model = models.load_adapter(model, folder)
    measured = _measured(model, tokenizer, edits, options, texts=texts, known=known)
    results = evaluation.results_of(measured)
    if not models.process_state().is_main_process:
        return
    predictions = {when: each.predictions for when, each in measured.items()}

    def save() -> None:
        if options.output_dir:
            evaluation.save_results_folder(options.output_dir, results, predictions)

    # Before tasks are run and results printed: a failing task or a closed terminal must not cost an hour of measuring.
    save()
    if options.tasks:
        results["tasks"] = evaluation.compare_tasks(
            model,
            tokenizer,
            options.tasks,
            include_path=options.tasks_path,
            limit=options.tasks_limit,
            num_fewshot=options.num_fewshot,
            apply_chat_template=options.chat_template,
            seed=options.seed,
        )
        save()
    print(evaluation.results_table(results, recipe))
    if len(measured) == 2 and results["after"]["whole_answers"]:
        print(f"\n{evaluation.before_after_text(measured['before'].predictions, measured['after'].predictions)}\n")
    if options.output_dir:
        print(written_to(options.output_dir, "eval_results.json and predictions"))


def _measured(
    model: Any, tokenizer: Any, edits: Sequence[EditRecord], options: Any, **others: Any
) -> dict[str, evaluation.Measurement]:
    """The measurement of the model, or those with its adapter switched off and on."""
    settings: dict[str, Any] = {"options": options, "seed": options.seed, **others}
    if not options.adapter:
        return {"before": evaluation.measure(model, tokenizer, edits, drift=False, desc="Measuring", **settings)}
    with models.unedited(model):
        before = evaluation.measure(model, tokenizer, edits, desc="Measuring before", **settings)
    # With the unedited model's answers, to which the edited one is held.
    after = evaluation.measure(model, tokenizer, before.records, before=before, desc="Measuring after", **settings)
    return {"before": before, "after": after}
