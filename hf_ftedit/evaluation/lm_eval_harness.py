"""EleutherAI's lm-evaluation-harness on a model that is already loaded: what an edit does to other abilities."""

from __future__ import annotations

import copy
import difflib
import io
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from itertools import count
from math import hypot
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size

from hf_ftedit.errors import EditError, first_line
from hf_ftedit.models import inference

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_RESAMPLES = 1000  # of the bootstrap, where a metric's standard error has no formula: known to about 2 %
_ONE_PROCESS = "DISABLE_MULTIPROC"  # lm-eval bootstraps in a pool of processes otherwise: forks of one with a model


def check_tasks(tasks: Sequence[str], include_path: str | Path | None = None) -> None:
    """
    Raise [`~hf_ftedit.EditError`] where `tasks` cannot be run; no model is needed, and no data are fetched.

    Args:
        tasks (`Sequence[str]`):
            Names of tasks, groups or tags of lm-eval.
        include_path (`str` or `Path`, *optional*):
            Folder with task files (YAML) of one's own, whose names go before lm-eval's.

    Raises:
        [`~hf_ftedit.EditError`]: lm-eval is not installed, there is no such folder, or no such task.
    """
    _task_manager(tasks, include_path)


def run_tasks(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 16,
    chat_template: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, float | int | None]]:
    """
    What a model scores in tasks of the lm-evaluation-harness.

    The model is run as it is: with its adapter, or without inside `model.disable_adapter()`. Its mode (train or eval),
    the tokenizer and the random state are as before afterwards. A task's data are fetched to the cache of `datasets`;
    nothing else is written.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            Causal language model, with or without adapters.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        tasks (`Sequence[str]`):
            Names of tasks, groups or tags of lm-eval.
        include_path (`str` or `Path`, *optional*):
            Folder with task files (YAML) of one's own; Python that they name is run.
        limit (`int` or `float`, *optional*):
            Only so many of each task's samples, the first ones; below 1, that share of them.
        num_fewshot (`int`, *optional*):
            Examples in front of each sample, in place of the number that the task sets; a task that sets 0 keeps it.
        batch_size (`int`, *optional*, defaults to `16`):
            Sequences of a batch; halved, from the start, where they do not fit into memory.
        chat_template (`bool`, *optional*, defaults to `False`):
            Put the prompts into the tokenizer's chat template.
        seed (`int`, *optional*, defaults to `0`):
            Of the examples drawn, and of sampling where a task samples.

    Returns:
        `dict[str, dict[str, float | int | None]]`: for each task, and for each group that has an aggregate, its
        metrics by name (`"acc"`; `"exact_match (strict-match)"` where answers went through a filter of that name), for
        each its standard error as `"<metric>_stderr"` (`None` where unknown), and the number of samples as `"n"`.
        Each process that `accelerate launch` starts measures everything.

    Raises:
        [`~hf_ftedit.EditError`]: as [`check_tasks`], or lm-eval fails at a task: no data, a broken task file.
    """
    manager = _task_manager(tasks, include_path)
    settings = {"limit": limit, "apply_chat_template": chat_template, "fewshot_as_multiturn": chat_template}
    halved = (batch_size >> times for times in count(1))
    measure = find_executable_batch_size(_measure, batch_size, halved.__next__)
    try:
        with inference(model), _kept_random_state(), _quiet():
            found = measure(model, copy.deepcopy(tokenizer), manager, tasks, num_fewshot, seed, **settings)
    except Exception as error:  # whatever a task's own files and data bring up
        raise EditError(
            f"lm-eval cannot run {', '.join(tasks)}: {type(error).__name__}: {first_line(error)}"
        ) from error
    return _scores(found)


def task_changes(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """
    How scores changed: a row for each metric of each task that was measured both times.

    Args:
        before (`Mapping[str, Mapping[str, Any]]`):
            What [`run_tasks`] returned for the unedited model.
        after (`Mapping[str, Mapping[str, Any]]`):
            What it returned for the edited one, on the same samples.

    Returns:
        `list[dict[str, Any]]`: rows of `task`, `metric`, `before`, `after`, `difference` (after less before),
        `difference_stderr` and `n`. The standard error, `sqrt(a**2 + b**2)`, is that of two independent samples: on
        the same samples, the true one is mostly smaller. What is unknown is `None`.
    """
    return [
        _change(task, metric, before[task], after[task])
        for task in before
        for metric in before[task]
        if metric != "n" and not metric.endswith("_stderr") and metric in after.get(task, {})
    ]


def _measure(
    batch_size: int,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    manager: Any,
    tasks: Sequence[str],
    num_fewshot: int | None,
    seed: int,
    **settings: Any,
) -> Mapping[str, Any]:
    """As lm-eval's `simple_evaluate`, without the programs that it starts to describe the machine and the folder."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)  # before the tasks are loaded: some shuffle their samples
    loaded = manager.load(list(dict.fromkeys(tasks)))
    for task in loaded["tasks"].values():
        own_number = task.get_config("num_fewshot")
        if own_number is None or (own_number and num_fewshot is not None):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed)
    with _quiet(logging.ERROR), _tied_as_it_is(model):  # it warns of every model that is loaded already
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    return evaluate(wrapped, loaded, bootstrap_iters=_RESAMPLES, log_samples=False, **settings)


def _change(task: str, metric: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    old, new = before[metric], after[metric]
    old_error, new_error = (scores.get(f"{metric}_stderr") for scores in (before, after))
    return {
        "task": task,
        "metric": metric,
        "before": old,
        "after": new,
        "difference": None if old is None or new is None else new - old,
        "difference_stderr": None if old_error is None or new_error is None else hypot(old_error, new_error),
        "n": after.get("n"),
    }


def _scores(found: Mapping[str, Any]) -> dict[str, dict[str, float | int | None]]:
    """lm-eval's results, keyed `"acc,none"` and `"acc_stderr,none"`, by plain names; without groups that have none."""
    scores: dict[str, dict[str, float | int | None]] = {}
    for task, values in found["results"].items():
        metrics = {_plain(key): value for key, value in values.items() if "," in key}
        if metrics:
            scores[task] = {key: float(value) if isinstance(value, Real) else None for key, value in metrics.items()}
            samples = found["n-samples"].get(task, {})  # not of groups
            scores[task]["n"] = samples.get("effective", values.get("sample_len"))
    return scores


def _plain(key: str) -> str:
    metric, _, filtered = key.partition(",")
    stem = metric.removesuffix("_stderr")
    return stem + ("" if filtered == "none" else f" ({filtered})") + metric[len(stem) :]


def _task_manager(tasks: Sequence[str], include_path: str | Path | None) -> Any:
    """lm-eval's index of tasks, in which `tasks` are."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise EditError("tasks need lm_eval; install it with pip install 'hf-ftedit[lm-eval]'") from error
    if include_path is None:
        return _having(tasks, _all_tasks(), "")
    folder = Path(include_path)
    if not folder.is_dir():
        raise EditError(f"tasks_path {str(folder)!r}: no such folder; give the folder of your own task files")
    with _quiet():
        own = TaskManager(include_path=str(folder), include_defaults=False)
    if set(tasks) <= set(own.all_subtasks):  # a group may hold tasks of lm-eval
        return own
    files = [(str(file), file.stat().st_mtime_ns) for file in sorted(folder.rglob("*.yaml"))]
    return _having(tasks, _all_tasks(str(folder), tuple(files)), str(folder))


@lru_cache(maxsize=1)
def _all_tasks(folder: str | None = None, files: tuple[tuple[str, int], ...] = ()) -> Any:
    """The index of lm-eval's tasks and those in `folder`: kept while `files` are, since it takes seconds to make."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        return TaskManager(include_path=folder)


def _having(tasks: Sequence[str], manager: Any, folder: str) -> Any:
    known = set(manager.all_tasks)
    for task in tasks:
        if task not in known:
            close = difflib.get_close_matches(task, manager.all_tasks)
            meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            own = "for a task of your own, give the folder of its YAML file as --tasks_path"
            if folder:
                own = f"no valid YAML file in --tasks_path {folder!r} has it"
            raise EditError(f"unknown task {task!r}; {meant}{own}")
    return manager


@contextmanager
def _quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Context in which lm-eval says nothing below `level`, prints nothing to standard output, and forks nothing."""
    logger, setting = logging.getLogger("lm_eval"), os.environ.get(_ONE_PROCESS)
    level_before = logger.level
    logger.setLevel(level)
    os.environ[_ONE_PROCESS] = "1"
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level_before)
        if setting is None:
            del os.environ[_ONE_PROCESS]
        else:
            os.environ[_ONE_PROCESS] = setting


@contextmanager
def _tied_as_it_is(model: Any) -> Iterator[None]:
    """Context in which `model` ties no weights: lm-eval asks for it, which breaks adapters on tied weights."""
    model.tie_weights = lambda: None
    try:
        yield
    finally:
        del model.tie_weights


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Context behind which Python, NumPy and PyTorch draw what they would have drawn without it."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
