"""Handle Ctrl-C while libraries are imported, which may swallow it or fail in other ways."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C, as in shells."""


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process immediately on Ctrl-C, before any work has begun."""
    with _handled(lambda number, frame: os._exit(INTERRUPTED)):
        yield


@contextmanager
def exit_status_kept() -> Iterator[None]:
    """Exit with the status of Ctrl-C after one, whatever error it caused."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    try:
        with _handled(note):
            yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except (Exception, SystemExit) as error:
        if came and getattr(error, "code", 1) != 0:
            raise SystemExit(INTERRUPTED) from None
        raise


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Install a handler in place of Python's own; keep any other."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
