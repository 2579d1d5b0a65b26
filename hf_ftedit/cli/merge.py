"""`hf-ftedit merge`: combine several edit adapters, or put one into its base model."""

from collections.abc import Sequence

from hf_ftedit import evaluation, sharing
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import claim_empty, is_first_process, written_to
from hf_ftedit.errors import EditError


def run(argv: Sequence[str]) -> None:
    """Merge, measure, write the folder, and print the scores of all and of each part."""
    options = read_arguments("merge", argv).options()
    if options.output_dir is None:
        raise EditError("--output_dir is missing; give the folder to write the merged adapter to")
    claim_empty(options.output_dir)
    saved = sharing.merge(**options.arguments)
    if not is_first_process():
        return
    print(evaluation.results_table(saved.results, saved.settings))
    print(evaluation.parts_table(saved.provenance["parts"]).text())
    kind = "model" if options.merge_into_base else "adapter"
    print(written_to(options.output_dir, f"the {kind}, its model card, edits and results"))
