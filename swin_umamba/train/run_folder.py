"""The folder of one training run."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from safetensors import SafetensorError

from swin_umamba.errors import UserError
from swin_umamba.files import write_text
from swin_umamba.models import SegmentationModel
from swin_umamba.weights import save_weights

CONFIG = "config.json"
LOG = "log.jsonl"
WEIGHTS = "model.safetensors"
CURVES = "curves.png"
PICTURE = "picture.png"

Record = dict[str, Any]


def require_free(folder: Path) -> None:
    """Raise UserError unless `folder` is missing or empty."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected a folder for the run")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} already holds files; name another folder for the run")


class RunFolder:
    """A run's files: the config at once, a log that grows, weights at the end.

    A context manager that keeps the log open. Every file but the log is written whole or not at
    all; the log is written line by line, each a JSON object. Raises UserError if the folder is
    taken or cannot be written to.
    """

    def __init__(self, path: Path, config_json: str) -> None:
        require_free(path)
        write_text(path / CONFIG, config_json)
        self.path = path
        self.records: list[Record] = []
        self._log: TextIO | None = None

    def __enter__(self) -> RunFolder:
        try:
            self._log = (self.path / LOG).open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {self.path / LOG}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def log(self, record: Record) -> None:
        """Add a line; it is on disk when this returns."""
        if self._log is None:
            raise RuntimeError("the run folder is used outside of its with block")
        try:
            self._log.write(json.dumps(record, allow_nan=False) + "\n")
            self._log.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path / LOG}: {error.strerror}") from error
        self.records.append(record)

    def save(self, model: SegmentationModel) -> None:
        """Write the weights."""
        try:
            save_weights(model, self.path / WEIGHTS)
        except SafetensorError as error:
            raise UserError(f"cannot write {self.path / WEIGHTS}: {error}") from error
