"""
Runs of the command line that end badly, each in a fork of this process: imports are paid once.

    python tests/killed.py CHAINS.json

CHAINS.json names lists of runs, made one after the other; two lists are worked on at a time. A run has `args` of the
command line, and, optionally, `at` (a function), `call` (which call of it), and `signal` (sent to itself just before
that call) or `code` (run at that call); and `port`, where two processes make it together, of which the second acts.
Prints, for each run, `code` (negative after a signal), `out` and `err`.
"""

import gc
import json
import multiprocessing
import os
import pydoc
import sys
import tempfile

from tiny import measure_drift_by_few_prompts


def patch(at: str, call: int, act: str) -> None:
    owner, name = at.rsplit(".", 1)
    owner = pydoc.locate(owner)
    real, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            exec(act, {"os": os})  # noqa: S102
        return real(*args, **kwargs)

    setattr(owner, name, patched)


def child(run: dict) -> int:
    from hf_ftedit.cli import main

    os.environ.update(run.get("env", {}))
    if "at" in run:
        act = f"os.kill(os.getpid(), {run['signal']})" if "signal" in run else run["code"]
        patch(run["at"], run["call"], act)
    return main(run["args"])


def forked(run: dict, out: int, err: int) -> int:
    """The process id of a fork that makes a run, and prints to two files."""
    if pid := os.fork():
        return pid
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 1
    try:
        code = child(run)
    except BaseException:  # a traceback is what the tests look for
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(run: dict) -> dict:
    """One run, with what it printed."""
    runs = [run]
    if "port" in run:  # as `accelerate launch` starts them
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": run["port"], "ACCELERATE_USE_CPU": "true"}
        runs = [{"args": run["args"], "env": {**env, "RANK": "0", "LOCAL_RANK": "0"}}]
        runs += [{**run, "env": {**env, "RANK": "1", "LOCAL_RANK": "1"}}]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pids = [forked(each, out.fileno(), err.fileno()) for each in runs]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        code = next(filter(None, codes), 0)
        texts = {name: (file.seek(0), file.read())[1] for name, file in (("out", out), ("err", err))}
    return {"code": code, **texts}


def all_ended(runs: list[dict]) -> list[dict]:
    return [ended(run) for run in runs]


if __name__ == "__main__":
    import matplotlib.figure  # noqa: F401

    import hf_ftedit.cli.train
    import hf_ftedit.evaluation.tables
    import hf_ftedit.hub.card
    import hf_ftedit.hub.plot
    import hf_ftedit.training.trainer  # noqa: F401
    from hf_ftedit.models import load_model

    load_model(None)  # imports what each run needs
    measure_drift_by_few_prompts()
    gc.freeze()  # what the imports made, which each training would look through

    chains = json.loads(open(sys.argv[1]).read())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(json.dumps(dict(zip(chains, pool.map(all_ended, chains.values(), chunksize=1), strict=True))))
