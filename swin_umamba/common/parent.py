"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

EVERY = 0.5  # seconds


def when_parent_ends(act: Callable[[], None]) -> None:
    """Call `act`, once and in a thread, when the process that started this one has ended.

    However it ended, SIGKILL included: the system then gives its children another parent.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        act()

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
