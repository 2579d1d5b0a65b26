"""`hf-ftedit push`: push an adapter folder to the Hub, with its card."""

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
    if is_first_process():
        url = push_folder(**{**vars(options), "private": options.private or None})
        print(f"Pushed to {url}")
