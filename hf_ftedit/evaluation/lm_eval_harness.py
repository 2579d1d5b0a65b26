"""Tasks of EleutherAI's lm-evaluation-harness without and with an adapter: what edits do to other abilities."""

import copy
import difflib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from math import hypot
from numbers import Real
from pathlib import Path
from typing import Any

from hf_ftedit.errors import EditError, first_line
from hf_ftedit.models import inference, unedited


def compare_tasks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> list[dict[str, Any]]:
    """
    Score a model in tasks (or groups, or tags of tasks) of lm-eval, with its adapter switched off and on.

    A model without adapter is measured once. `include_path` is a folder with task files (YAML) of one's own; Python
    that they name is run. `settings` are passed to `lm_eval.simple_evaluate`, such as `limit`, `num_fewshot` or
    `apply_chat_template`; `seed` is that of the examples that are drawn, and of sampling.

    Each row has, for a metric of a task, `task`, `metric` (with its filter), `before`, `after`, `difference`,
    `difference_stderr` (as of independent samples: mostly too large) and `n`, the samples; `None` where unknown.
    Errors are those of [`check_tasks`], and what stops lm-eval at a task: no data, a broken task file.
    """
    manager = check_tasks(tasks, include_path)
    settings |= {f"{name}_seed": seed for name in ("random", "numpy_random", "torch_random", "fewshot_random")}
    settings |= {"tasks": list(dict.fromkeys(tasks)), "task_manager": manager, "log_samples": False}
    try:
        with unedited(model):
            before = _scores(model, tokenizer, settings)
        after = _scores(model, tokenizer, settings) if hasattr(model, "disable_adapter") else {}
    except Exception as error:  # whatever a task's own files and data bring up
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise EditError(f"lm-eval cannot run {', '.join(tasks)}: {reason}; check the task's file and data") from error
    rows = []
    for (task, metric), (old, old_error, n) in before.items():
        new, new_error, _ = after.get((task, metric), (None, None, None))
        change = None if old is None or new is None else new - old
        stderr = None if old_error is None or new_error is None else hypot(old_error, new_error)
        row = {"task": task, "metric": metric, "before": old, "after": new}
        rows.append(row | {"difference": change, "difference_stderr": stderr, "n": n})
    return rows


def check_tasks(tasks: Sequence[str], include_path: str | Path | None = None) -> Any:
    """Check that lm-eval, the folder and `tasks` exist, without a model or data; lm-eval's index of tasks."""
    folder, remedy = None, "for a task of your own, give the folder of its YAML file as --tasks_path"
    if include_path is not None:
        folder, remedy = str(include_path), f"no valid YAML file in --tasks_path {str(include_path)!r} has it"
        if not Path(folder).is_dir():
            raise EditError(f"tasks_path {folder!r}: no such folder; give the folder of your own task files")
        # Alone where it suffices: the index of lm-eval's own ten thousand tasks takes many seconds.
        if set(tasks) <= set((own := _index(folder, False)).all_subtasks):
            return own
    # Cached by where the folder is, not by its name: a relative one means another after `chdir`.
    names = (manager := _cached_index(folder and str(Path(folder).resolve()), True)).all_tasks
    if unknown := [task for task in tasks if task not in names]:
        close = " or ".join(map(repr, difflib.get_close_matches(unknown[0], names)))
        raise EditError(f"unknown task {unknown[0]!r}; {f'did you mean {close}? ' if close else ''}{remedy}")
    return manager


def _index(folder: str | None, include_defaults: bool) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise EditError("tasks need lm_eval; install it with pip install 'hf-ftedit[lm-eval]'") from error
    with _quiet():
        return TaskManager(include_path=folder, include_defaults=include_defaults)


_cached_index = lru_cache(maxsize=1)(_index)


def _scores(model: Any, tokenizer: Any, settings: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    """By task and metric, lm-eval's score, its standard error, and the number of samples."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with inference(model), _quiet():
        model.tie_weights = lambda: None  # HFLM calls it, which would break adapters on tied weights
        try:
            # A copy, as HFLM sets the tokenizer's padding; few resamples, as its default of 100,000 takes minutes.
            wrapped = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=16)
            output: Any = simple_evaluate(wrapped, **{"bootstrap_iters": 1000, **settings})
        finally:
            del model.tie_weights
    scores = {}
    for task, values in output["results"].items():
        n = output["n-samples"].get(task, {}).get("effective", values.get("sample_len"))
        for metric, name in (key.split(",") for key in values if "," in key and "_stderr," not in key):
            pair = (values[f"{metric},{name}"], values.get(f"{metric}_stderr,{name}"))
            shown = metric if name == "none" else f"{metric} ({name})"
            scores[task, shown] = (*(float(value) if isinstance(value, Real) else None for value in pair), n)
    return scores


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval from printing, and from bootstrapping in a pool of processes."""
    # Its pool would fork a process that holds a model, and copies of CUDA contexts fail.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ["DISABLE_MULTIPROC"] = "1"
    with redirect_stdout(io.StringIO()):
        yield
