"""`hf-ftedit verify`: measure published edits again, and compare with what they claim."""

from __future__ import annotations

from collections import Counter
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
        print(f"{without_home(options.name)}{at}: {_verdict(verification.checks)}.")
    return 0 if verification.passed else 1


def _verdict(checks: Sequence[sharing.Check]) -> str:
    counts = Counter(check.verdict for check in checks)
    if bad := counts[sharing.BAD]:
        return f"{bad} of {len(checks)} claims {'does' if bad == 1 else 'do'} not hold"
    if unchecked := counts[sharing.OPEN]:
        return f"no claim differs; {unchecked} {'was' if unchecked == 1 else 'were'} not checked"
    return "every claim holds"
