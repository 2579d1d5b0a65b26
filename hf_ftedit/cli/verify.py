"""`hf-ftedit verify`: measure published edits again, and compare with what they claim."""

from __future__ import annotations

from collections.abc import Sequence

from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import is_first_process, without_home
from hf_ftedit.errors import EditError


def run(argv: Sequence[str]) -> int:
    """Print a line for each check; 1 where a claim does not hold."""
    options = read_arguments("verify", argv).options()
    if options.name is None:
        raise EditError("verify needs a folder or Hub id, such as hf-ftedit verify user/name")
    from hf_ftedit.evaluation import checks_table
    from hf_ftedit.sharing import BAD, verify

    verification = verify(
        options.name,
        revision=options.revision,
        base_model=options.model_name_or_path,
        gguf_file=options.gguf_file,
        tolerance=options.tolerance,
        trust_remote_code=options.trust_remote_code,
    )
    if is_first_process():
        print(checks_table(verification.checks).text())
        if verification.said:
            print(f"\n{verification.said}\n")
        at = f" at commit {verification.revision}" if verification.revision else ""
        bad = sum(check.verdict == BAD for check in verification.checks)
        total = len(verification.checks)
        verdict = "every claim holds" if verification.passed else f"{bad} of {total} claims do not hold"
        print(f"{without_home(options.name)}{at}: {verdict}.")
    return 0 if verification.passed else 1
