"""Progress bars for preparing a dataset."""

from __future__ import annotations

import os
from types import TracebackType

from rich.progress import TaskID

from swin_umamba.cli.console import progress

THREADS = min(os.cpu_count() or 1, 4)  # each holds a whole volume in memory


class PreparingBar:
    """A context manager that yields a function of the phase, the number done and the total."""

    def __init__(self, shown: bool = True) -> None:
        self._bar = progress()
        self._bar.disable = not shown
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> PreparingBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of)
        self._bar.update(self._tasks[what], completed=done)
