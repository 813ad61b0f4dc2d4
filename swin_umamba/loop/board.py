"""TensorBoard logging, if it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from swin_umamba.runs.folder import Record

FOLDER = "tensorboard"


class Board:
    """Writes the numbers of a run's records for TensorBoard; does nothing if it is not installed.

    iteration: where the run continues; anything an earlier process wrote after it is hidden.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(folder / FOLDER, purge_step=iteration + 1)

    def add(self, record: Record) -> None:
        if self._writer is None:
            return
        for name, value in record.items():
            if isinstance(value, int | float) and name != "iteration":
                self._writer.add_scalar(name, value, record["iteration"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
