"""`hf-ftedit augment`: write the training rows of edits, and their probes, as a dataset."""

from collections.abc import Sequence

from hf_ftedit import augmentation, hub, models
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import hide_brief_bars, is_first_process, written_to
from hf_ftedit.cli.resolve import edits_to_measure, embedded, load_base, model_config_of
from hf_ftedit.data import read_facts, read_named
from hf_ftedit.errors import EditError


def run(argv: Sequence[str]) -> None:
    """Make the rows, and write them with a card."""
    arguments = read_arguments("augment", argv)
    options = arguments.options()
    edits = edits_to_measure(options)
    pool = options.locality_pool or embedded(options, "locality_pool.jsonl")
    facts = None if pool is None else read_named("locality_pool", read_facts, pool)
    if options.output_dir is None:
        raise EditError("--output_dir is missing; give the folder to write the dataset to")
    hide_brief_bars(len(edits))
    model, tokenizer = load_base(options, edits, model_config_of(arguments, options, {}))
    builder = augmentation.EditDatasetBuilder(
        edits,
        model,
        tokenizer,
        locality_pool=facts,
        options=options,
        chat_template=options.chat_template,
        seed=options.seed,
    )
    builder.check_same()
    models.in_turns(builder.download_and_prepare)
    if not is_first_process():
        return
    dataset = builder.as_dataset()
    hub.save_dataset_folder(options.output_dir, dataset, builder.settings)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in dataset.items())
    print(written_to(options.output_dir, f"the rows ({sizes})"))
