"""SIGINT and SIGTERM raise `Stopped`: at once, or while training when a checkpoint holds the current step."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """Raised where SIGINT or SIGTERM ends the process; `detail` is what was done before, as a checkpoint saved."""

    # No `Exception`: code that handles errors must not swallow it.
    def __init__(self, number: int, detail: str = "") -> None:
        self.detail, self.exit_code = detail, 128 + number  # as shells count
        super().__init__(f"stopped by {signal.Signals(number).name} {detail}".rstrip())


@dataclass
class _Handler:
    """The handler of both signals; one object, as a process has one set of handlers."""

    pending: int = 0  # the first signal that came
    received_at: float = 0.0
    is_deferred: bool = False  # while training, which looks at `pending` at the end of each step
    owner: int = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if os.getpid() != self.owner:
            # A forked worker has nothing to save, and pools end their workers by SIGTERM.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.pending:
            self.pending, self.received_at = number, now
            if not self.is_deferred:
                raise Stopped(number)
            # No `print`: a handler may interrupt one, and buffered streams are not reentrant.
            os.write(2, f"hf-ftedit: {signal.Signals(number).name}: saving at the end of this step\n".encode())
        elif self.is_deferred and number == signal.SIGINT and now - self.received_at > 1:
            # Terminals and launchers pass one Ctrl-C on twice in a row; a later one is a second wish.
            self.is_deferred = False
            raise Stopped(number, "at once, without saving")


_handler = _Handler()


def _sent_again(dropped: Any) -> None:
    """Send a signal again whose [`Stopped`] Python dropped, as it does in finalizers and callbacks of references."""
    if not isinstance(stopped := dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)
        return
    _handler.pending = 0
    # Later: sent now, it would be raised in here, and dropped again.
    threading.Timer(0.1, os.kill, (os.getpid(), stopped.exit_code - 128)).start()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, SIGTERM and Ctrl-C raise [`Stopped`]: at once, or while training when a step is saved."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    _handler.pending, _handler.is_deferred, _handler.owner = 0, False, os.getpid()
    # What the process was started to ignore, as by `nohup`, stays ignored.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _handler) for number in heard}
    hook, sys.unraisablehook = sys.unraisablehook, _sent_again
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _handler.pending = 0


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the block a signal only sets [`pending_signal`]; it raises [`Stopped`] after it, if nothing else did."""
    if threading.current_thread() is not threading.main_thread():
        yield  # the main thread is not training, and stops at once
        return
    _handler.is_deferred = True
    try:
        yield
    finally:
        _handler.is_deferred = False
    if _handler.pending:
        raise Stopped(_handler.pending)


def pending_signal() -> int:
    """Number of the signal that is to stop this process; 0 without one."""
    return _handler.pending
