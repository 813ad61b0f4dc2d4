"""Ending a run when it is asked to: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A launcher passes on a signal that the terminal has already sent to all processes.
SAME_REQUEST = 1.0  # seconds


class StopRequests:
    """Called, tells whether a signal came that asks to stop; `signal` is its number, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.when = 0.0

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect SIGINT and SIGTERM; a later second one acts as without us.

    Outside of the main thread, where Python takes no signals, there are never any. A signal that
    the process was started to ignore, as shells have background jobs ignore SIGINT, stays ignored.
    """
    asked = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    before = {kind: handler for kind, handler in handlers.items() if handler != signal.SIG_IGN}

    def ask(kind: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked.signal is None:
            asked.signal, asked.when = kind, now
        elif now - asked.when > SAME_REQUEST:
            restore()
            signal.raise_signal(kind)

    def restore() -> None:
        for kind, handler in before.items():
            # None stands for a handler that Python did not set, and cannot set again.
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield asked
    finally:
        restore()
