"""Scripts run in the process of the test, where everything is imported already."""

import contextlib
import io
import os
import runpy
import socket
import sys
import warnings
from pathlib import Path
from unittest import mock


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run(script: Path, *arguments: str) -> str:
    """What `python script *arguments` prints; it must end with exit code 0."""
    shown = io.StringIO()
    argv, path = [str(script), *arguments], [str(script.parent), *sys.path]
    own = mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "path", path), mock.patch.dict(os.environ)
    with contextlib.ExitStack() as stack:
        for context in (*own, contextlib.redirect_stdout(shown), warnings.catch_warnings()):
            stack.enter_context(context)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code
    return shown.getvalue()
