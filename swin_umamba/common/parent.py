"""End child processes together with their parent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

EVERY = 0.5  # seconds


def when_parent_ends(act: Callable[[], None]) -> None:
    """Call `act` once, in a thread, when the parent process has ended.

    This also works if the parent was killed by SIGKILL: the system then reparents its children.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        act()

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
