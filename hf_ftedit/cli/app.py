"""Command line `hf-ftedit`: runs a verb; an error becomes one line on standard error and an exit code."""

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from hf_ftedit import __version__
from hf_ftedit.cli.arguments import help_text
from hf_ftedit.cli.console import is_first_process, screens, without_home
from hf_ftedit.cli.options import OPTIONS
from hf_ftedit.errors import NO_MEMORY, EditError, is_out_of_memory, one_line
from hf_ftedit.files import claims, refusal_behind
from hf_ftedit.text import visible
from hf_ftedit.training import Stopped, stoppable

USAGE = """\
usage: hf-ftedit VERB [--config FILE.yaml] [--OPTION VALUE ...]

Edit facts in causal language models by fine-tuning.

verbs:
  train      edit a model, measure it before and after, write the adapter folder
             (without options: the embedded model and edits, in about a minute)
  evaluate   measure a model, or a model with an adapter, on the probes of edits
  augment    write the training rows of edits, and their probes, as a dataset
  push       push an adapter folder to the Hub, with its card
  verify     measure published edits again and compare with what they claim
  merge      combine several edit adapters, or put one into its base model
  export     write an adapter, or the model with it, for llama.cpp, Ollama and others, and examine that
  sweep      train a grid of settings, and compare the runs in one table and plots
  playground open a page in the browser: type facts, train, ask before and after

hf-ftedit VERB --help lists the options of a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one verb with `argv`, the process's arguments by default; the exit code.

    It is 1 where `verify` finds a claim that does not hold; 2 for bad input, a full disk or too little memory, with
    one line on standard error that says what to do; 70 for a fault of ours, with its traceback; 130 or 143 after
    Ctrl-C or SIGTERM; 141 where the reader of standard output went away, which stops nothing; else 0.
    """
    if argv is None and sys.flags.optimize > 1:
        # transformers cannot be imported without docstrings: the same again with -O.
        command = [sys.executable, "-m", "hf_ftedit", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONOPTIMIZE": "1"})
    with screens() as out, claims:
        code = _run(argv)
    if code or out.error is None:
        return code
    if isinstance(out.error, BrokenPipeError):
        return 141
    return _exit_with(f"standard output: {out.error}; free some space, or write it elsewhere", 2)


def _run(argv: Sequence[str] | None) -> int:
    verb, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if verb in ("-h", "--help"):
            print(USAGE)
        elif verb == "--version":
            print(__version__)
        elif verb not in OPTIONS:
            raise EditError(f"unknown verb {verb!r}; choose one of {', '.join(OPTIONS)}")
        elif {"-h", "--help"} & set(args):
            print(help_text(verb))
        else:
            _quiet()
            with stoppable():
                # The verb's file alone, by its name: the others, and what they import, are not loaded.
                return importlib.import_module(f"hf_ftedit.cli.{verb}").run(args) or 0
    except EditError as error:
        return _exit_with(str(error), 2)
    except Stopped as stopped:
        if verb == "sweep":  # which begins a run again, whatever that saved
            detail = "before the end; the same command goes on, finished runs are kept"
            stopped = Stopped(stopped.exit_code - 128, detail)
        go_on = "; add --resume_from_checkpoint to go on" if verb == "train" and not stopped.detail else ""
        return _exit_with(f"{stopped}{go_on}", stopped.exit_code)
    except ImportError as error:
        return _exit_with(f"{one_line(error)}; install it, or leave out what needs it", 2)
    # One place for all that a file system refuses: a check before each write would still miss a disk that fills up.
    except Exception as error:
        if is_out_of_memory(error):
            return _exit_with(NO_MEMORY, 2)
        if (refusal := refusal_behind(error)) is None:
            print(visible(traceback.format_exc()), end="", file=sys.stderr)
            return 70
        name = refusal.filename or "the working folder, or one of the run"
        remedy = "free some space, give another folder (HF_HOME for caches, TMPDIR), or mend permissions"
        return _exit_with(f"{name}: {refusal.strerror}; {remedy}", 2)
    return 0


class Visible(logging.Formatter):
    """Log lines in which texts of strangers steer no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, its hidden characters named."""
        return visible(super().format(record))


def _exit_with(message: str, code: int) -> int:
    # The other processes of `accelerate launch` have the same to say; their exit code ends the launch as well.
    if is_first_process():
        print(f"hf-ftedit: {visible(without_home(message))}", file=sys.stderr)
    return code


def _quiet() -> None:
    """Silence what a user cannot act on: deprecations inside libraries, and their remarks on what they align."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    # `Trainer` says it when it is to push, as bars of the Hub are off.
    warnings.filterwarnings("ignore", "Cannot enable progress bars")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        # Bars of downloads and loading fill log files; the one of GGUF files knows only tqdm's own variable.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    # It has a handler of its own, and would say all twice.
    logging.getLogger("huggingface_hub").propagate = False
    # It speaks up where it is installed and not used.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(Visible("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("hf_ftedit").setLevel(logging.INFO)
