"""Ending a run when it is asked to: Ctrl-C, or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGINT or SIGTERM came; a second one acts as without us.

    Outside of the main thread, where Python takes no signals, it always tells no.
    """
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def ask(kind: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        restore()

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield lambda: asked
    finally:
        restore()
