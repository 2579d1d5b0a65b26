"""`hf-ftedit push`: push an adapter folder to the Hub, with its card."""

from __future__ import annotations

from collections.abc import Sequence

from hf_ftedit.cli.arguments import read_arguments
from hf_ftedit.cli.console import is_first_process
from hf_ftedit.errors import EditError
from hf_ftedit.hub import push_folder


def run(argv: Sequence[str]) -> None:
    """Push from the first process, and print the page's address."""
    options = read_arguments("push", argv).options()
    if options.folder is None or options.repo_id is None:
        raise EditError("push needs a folder and --repo_id, such as hf-ftedit push edited-adapter --repo_id user/name")
    if not is_first_process():
        return
    url = push_folder(
        options.folder,
        options.repo_id,
        private=options.private or None,
        revision=options.revision,
        commit_message=options.commit_message,
    )
    print(f"Pushed to {url}")
