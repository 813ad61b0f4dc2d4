"""Progress bars for preparing a dataset."""

from __future__ import annotations

import os

from rich.progress import TaskID
from typing_extensions import Self

from swin_umamba.cli.console import progress
from swin_umamba.common.closing import Closing

THREADS = min(os.cpu_count() or 1, 4)  # each holds a whole volume in memory


class PreparingBar(Closing):
    """A context manager that yields a function of the phase, the number done and the total."""

    def __init__(self, shown: bool = True) -> None:
        self._bar = progress()
        self._bar.disable = not shown
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def close(self) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of)
        self._bar.update(self._tasks[what], completed=done)
