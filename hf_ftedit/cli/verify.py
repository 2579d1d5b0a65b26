"""`hf-ftedit verify`: measure published edits again, and compare with what they claim."""

from collections.abc import Sequence

from hf_ftedit import evaluation, sharing
from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import is_first_process, without_home
from hf_ftedit.errors import EditError


def run(argv: Sequence[str]) -> int:
    """Print a line for each check; 1 where a claim does not hold."""
    options = read_arguments("verify", argv).options()
    if options.name is None:
        raise EditError("verify needs a folder or Hub id, such as hf-ftedit verify user/name")
    verification = sharing.verify(**options.arguments)
    if is_first_process():
        print(evaluation.Table(["", "claim", "found", "verdict"], [[*check] for check in verification.checks]).text())
        if verification.said:
            print(f"\n{verification.said}\n")
        at = f" at commit {verification.revision}" if verification.revision else ""
        bad, total = sum(check.verdict == sharing.BAD for check in verification.checks), len(verification.checks)
        verdict = f"{bad} of {total} claims {'does' if bad == 1 else 'do'} not hold" if bad else "every claim holds"
        print(f"{without_home(options.name)}{at}: {verdict}.")
    return 0 if verification.passed else 1
