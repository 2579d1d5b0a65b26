"""The progress of a training, read from the bars that its libraries draw with tqdm: all count what they do already."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from tqdm.std import tqdm  # what all kinds of bars inherit from

from hf_ftedit.errors import EditError

Report = Callable[[Any], None]


class Progress(NamedTuple):
    """Where a training is: its stage, and the bar of what it does there, where that has one."""

    stage: str
    label: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


class Stages:
    """Reports each stage of a training and each move of its bars, and ends it once it is to stop."""

    def __init__(self, report: Report, stop: threading.Event) -> None:
        self.report, self.stop, self.stage = report, stop, ""

    def begin(self, stage: str) -> None:
        """Report that `stage` begins."""
        self.stage = stage
        self._show(Progress(stage))

    @contextmanager
    def reading_bars(self) -> Iterator[None]:
        """
        Report the bars of this thread, which are not drawn meanwhile; those of other threads stay as they are.

        Gradio's `Progress(track_tqdm=True)` changes tqdm too, and for good. It gives no time left, and does not reach
        a thread of our own.
        """
        thread, plain = threading.get_ident(), tqdm.__init__

        def init(bar: tqdm, *args: Any, **settings: Any) -> None:
            if threading.get_ident() != thread or settings.get("disable") is True:  # a part of another bar
                return plain(bar, *args, **settings)
            plain(bar, *args, **settings | {"disable": False, "file": io.StringIO()})
            bar.update = partial(self._update, bar, bar.update)
            self._read(bar)

        tqdm.__init__ = init
        try:
            yield
        finally:
            tqdm.__init__ = plain

    def _update(self, bar: tqdm, count: Callable[[int], bool | None], n: int = 1) -> bool | None:
        drawn = count(n)
        self._read(bar)
        return drawn

    def _read(self, bar: tqdm) -> None:
        done, total, label = bar.n, bar.total or 0, bar.desc.removesuffix(": ") or "Steps"
        left = bar.format_dict["elapsed"] * (total / done - 1) if done else None
        # A full bar says no more: what comes next may have none.
        self._show(Progress(self.stage, label, done, total, left) if done < total else Progress(self.stage))

    def _show(self, progress: Progress) -> None:
        if self.stop.is_set():
            raise EditError("the training was stopped; nothing has changed")
        self.report(progress)
