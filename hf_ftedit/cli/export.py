"""`hf-ftedit export`: write an adapter, or its model, for other programs, and take the exam on what was written."""

import shlex
from collections.abc import Sequence

from hf_ftedit import sharing
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import claim_empty, without_home, written_to
from hf_ftedit.errors import EditError


def run(argv: Sequence[str]) -> None:
    """Export, and print which facts survived and the command that runs what was written."""
    options = read_arguments("export", argv).options()
    if options.adapter is None or options.output_dir is None:
        raise EditError("export needs an adapter and --output_dir, such as hf-ftedit export folder --output_dir out")
    claim_empty(options.output_dir)
    results = sharing.export(**options.arguments)
    if results["exams"]:
        print(sharing.survival_table(results).text())
        print("\n".join(sharing.survival_lines(results)))
    print(written_to(options.output_dir, ", ".join([*results["files"], "a report"])))
    quoted = shlex.quote(options.output_dir)
    # Between quotes, a shell knows no ~.
    folder = without_home(quoted) if quoted == options.output_dir else quoted
    print(f"Run it: cd {folder} && {sharing.command_for(results)}")
