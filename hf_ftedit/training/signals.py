"""Ctrl-C and SIGTERM: they stop at once where nothing is lost by it, and while training when a step has been saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """
    The process was told to stop, and has put its things in order: what `finally` and `with` do is done.

    Like `KeyboardInterrupt` it is no `Exception`: nothing that mends errors may swallow it.

    Args:
        number (`int`):
            The signal.
        done (`str`, *optional*):
            What was done before stopping, such as `"at step 7; saved in out/checkpoint-7"`.
    """

    def __init__(self, number: int, done: str = "") -> None:
        self.number, self.done = number, done
        super().__init__(f"stopped by {signal.Signals(number).name}{done and ' '}{done}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended."""
        return 128 + self.number


class _Wish:
    """What was asked of this process by signals; there is one, as there is one set of signal handlers."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.asked_at = 0.0
        self.waits = False  # whether somebody looks at `number` in time
        self.owner = 0

    def take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a worker that was forked: it is not the one to save anything
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.number is None:
            self.number, self.asked_at = number, now
            if not self.waits:
                raise Stopped(number)
            name = signal.Signals(number).name
            os.write(2, f"hf-ftedit: {name}: saving at the end of this step\n".encode())
        elif self.waits and number == signal.SIGINT and now - self.asked_at > 1:
            self.waits = False  # a second Ctrl-C; launchers send one signal twice in a row
            raise Stopped(number, "at once, without saving")


_wish = _Wish()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, SIGTERM and Ctrl-C raise [`Stopped`]: at once, or while training when a step is saved."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    _wish.number, _wish.waits, _wish.owner = None, False, os.getpid()
    # What the process was told to ignore, as by `nohup`, stays ignored.
    known = {number: signal.getsignal(number) for number in SIGNALS}
    known = {number: handler for number, handler in known.items() if handler is not signal.SIG_IGN}
    for number in known:
        signal.signal(number, _wish.take)
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        _wish.number, _wish.owner = None, 0


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block a signal only leaves a wish, see [`wished`]; one that nobody saw stops the process after it."""
    _wish.waits = True
    try:
        yield
    finally:
        _wish.waits = False
    if _wish.number is not None:
        raise Stopped(_wish.number)


def ignoring_signals(init: Callable[[int], None] | None, number: int) -> None:
    """
    Start a data loader's worker that no signal ends: one of the terminal or of a launcher is for the main process.

    Args:
        init (`Callable`, *optional*):
            What else is to be done in the worker.
        number (`int`):
            The worker.
    """
    for signal_number in SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
    if init:
        init(number)


def wished() -> int:
    """The signal by which this process was asked to stop; 0 without one."""
    return _wish.number or 0
