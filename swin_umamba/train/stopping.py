"""Ending a run when it is asked to: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A launcher passes on a signal that the terminal has already sent to all processes.
SAME_REQUEST = 1.0  # seconds


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGINT or SIGTERM came; a later second one acts as without us.

    Outside of the main thread, where Python takes no signals, it always tells no. A signal that
    the process was started to ignore, as shells have background jobs ignore SIGINT, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: float | None = None
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    before = {kind: handler for kind, handler in handlers.items() if handler != signal.SIG_IGN}

    def ask(kind: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if asked is None:
            asked = now
        elif now - asked > SAME_REQUEST:
            restore()
            signal.raise_signal(kind)

    def restore() -> None:
        for kind, handler in before.items():
            # None stands for a handler that Python did not set, and cannot set again.
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield lambda: asked is not None
    finally:
        restore()
