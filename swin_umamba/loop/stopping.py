"""End a run on request: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# seconds in which a launcher may pass on a signal that the terminal has already sent to all
# processes
SAME_REQUEST = 1.0  # seconds


class StopRequests:
    """A callable that returns whether to stop; `signal` is the signal received, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.when = 0.0

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Handle SIGINT and SIGTERM; a later second one has its default effect.

    Outside of the main thread, where Python handles no signals, there are never any. A signal that
    the process was started to ignore, as SIGINT in background jobs of shells, stays ignored.
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
            # None is a handler that Python did not install and cannot restore.
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield asked
    finally:
        restore()
