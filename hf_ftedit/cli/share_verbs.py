"""The verbs `push`, `verify` and `merge`: options to calls, and what they print."""

from __future__ import annotations

from typing import Any

from hf_ftedit.cli.arguments import OPTIONS, parsed
from hf_ftedit.cli.console import is_first_process, without_home, written_to
from hf_ftedit.errors import EditError


def push(args: list[str]) -> None:
    """Push a folder to the Hub."""
    options: Any = parsed((OPTIONS["push"],), args)[0]
    if options.folder is None or options.repo_id is None:
        raise EditError("push needs a folder and --repo_id, such as hf-ftedit push edited-adapter --repo_id user/name")
    if not is_first_process():
        return
    from hf_ftedit.hub import push_folder

    url = push_folder(
        options.folder,
        options.repo_id,
        private=options.private or None,
        revision=options.revision,
        commit_message=options.commit_message,
    )
    print(f"Pushed to {url}")


def verify(args: list[str]) -> int:
    """Measure published edits again; 1 where a claim does not hold."""
    options: Any = parsed((OPTIONS["verify"],), args)[0]
    if options.name is None:
        raise EditError("verify needs a folder or Hub id, such as hf-ftedit verify user/name")
    from hf_ftedit.evaluation import checks_table
    from hf_ftedit.sharing import BAD
    from hf_ftedit.sharing import verify as verified

    found = verified(
        options.name,
        revision=options.revision,
        base_model=options.model_name_or_path,
        tolerance=options.tolerance,
        trust_remote_code=options.trust_remote_code,
    )
    if not is_first_process():
        return 0 if found.passed else 1
    print(checks_table(found.checks))
    at = f" at commit {found.revision}" if found.revision else ""
    bad = sum(check.verdict == BAD for check in found.checks)
    verdict = "every claim holds" if found.passed else f"{bad} of {len(found.checks)} claims do not hold"
    print(f"{without_home(options.name)}{at}: {verdict}.")
    return 0 if found.passed else 1


def merge(args: list[str]) -> None:
    """Combine adapters, or put one into its base model."""
    options: Any = parsed((OPTIONS["merge"],), args)[0]
    if options.output_dir is None:
        raise EditError("--output_dir is missing; give the folder to write the merged adapter to")
    from hf_ftedit.evaluation import parts_table, results_table
    from hf_ftedit.sharing import merge as merged

    told = merged(
        options.adapters,
        options.output_dir,
        combination_type=options.combination_type,
        weights=options.weights,
        density=options.density,
        base_model=options.model_name_or_path,
        merge_into_base=options.merge_into_base,
        trust_remote_code=options.trust_remote_code,
    )
    if not is_first_process():
        return
    print(results_table(told.results))
    print(parts_table(told.provenance["parts"]))
    what = "model" if options.merge_into_base else "adapter"
    print(written_to(options.output_dir, f"the {what}, its model card, edits and results"))
