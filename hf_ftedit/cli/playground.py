"""`hf-ftedit playground`: a page in the browser to edit facts, and to ask the model before and after."""

from collections.abc import Sequence
from importlib.util import find_spec

from hf_ftedit import hub, models, playground
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.resolve import adapter_settings, embedded, embedded_settings, load_base
from hf_ftedit.cli.train import settings_of
from hf_ftedit.data import read_facts, read_named, read_texts
from hf_ftedit.errors import EditError, refusals_of_libraries, shown


def run(argv: Sequence[str]) -> None:
    """Load the model and the adapters, and serve the page until Ctrl-C."""
    arguments = read_arguments("playground", argv)
    if not find_spec("gradio"):
        raise EditError("playground needs the package gradio; install it with pip install 'hf-ftedit[playground]'")
    names = arguments.values.get("adapters") or []
    # The first adapter says what its base model is, and how to prompt it.
    recipe = adapter_settings(arguments, names[0])[2] if names else {}
    defaults = {**embedded_settings(arguments, recipe), **recipe}
    options = arguments.options(defaults)
    options.locality_pool = options.locality_pool or embedded(options, "locality_pool.jsonl")
    config, model_config = settings_of(arguments, {**defaults, **vars(options)})
    if config.full_finetune or options.adapter or config.push_to_hub:
        raise EditError("playground trains adapters of its visitors: leave full_finetune, adapter and push_to_hub out")
    # Visitors read these names: they tell no path of this machine.
    adapters = {models.public_name(name): hub.fetch_folder(name) for name in names}
    if len(adapters) < len(names):
        raise EditError(f"two adapters have one name of {', '.join(map(shown, adapters))}; rename a folder")
    # Else the first visitor who trains would hear of a file that cannot be read.
    for source in ("locality_pool", "known_facts", "perplexity_texts", "training_texts"):
        read_named(source, read_texts if source.endswith("texts") else read_facts, getattr(options, source))
    model, tokenizer = load_base(options, [], model_config)
    from trl import get_peft_config

    with refusals_of_libraries():
        peft_config = get_peft_config(model_config)
    name = models.public_name(options.gguf_file or options.model_name_or_path or models.EMBEDDED_NAME)
    ours = playground.Playground(model, tokenizer, config, peft_config, adapters)
    playground.launch(ours, name, host=options.host, port=options.port, share=options.share)
