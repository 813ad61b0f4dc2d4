"""The folder of one training run."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any, TextIO

import torch
from safetensors import SafetensorError

from swin_umamba.errors import UserError
from swin_umamba.files import replacing, write_text
from swin_umamba.models import SegmentationModel
from swin_umamba.weights import save_weights

CONFIG = "config.json"
PLAN = "plan.json"
SPLITS = "splits.json"
LOG = "log.jsonl"
WEIGHTS = "model.safetensors"  # the last
BEST = "best.safetensors"
STATE = "state.pt"
LOCK = ".lock"
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
    """A run's files: config, a log that grows, checkpoints, weights.

    A context manager that keeps the log open and the folder locked against other processes; the
    lock goes with the process. Every file but the log is written whole or not at all; the log is
    written line by line, each a JSON object. state.pt alone decides where a run goes on: what else
    a killed run left is written anew. resume: go on in a folder that holds a run of the same
    config. files: further text files, by name. Raises UserError if the folder is taken, in use, or
    cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        config_json: str,
        files: Mapping[str, str] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        if resume:
            _require_same(path / CONFIG, config_json)
        else:
            require_free(path)
        self.path = path
        self._lock = _locked(path)
        if not resume:
            for name, text in (files or {}).items():
                write_text(path / name, text)
            write_text(path / CONFIG, config_json)
        self.records: list[Record] = []
        self._log: TextIO | None = None

    def __enter__(self) -> RunFolder:
        try:
            self._log = (self.path / LOG).open("a", encoding="utf-8")
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
        self._lock.close()

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

    def keep_log(self, iterations: int) -> None:
        """Drop the lines after that many iterations, half a line of a killed run among them."""
        assert self._log is not None
        self.records = []
        for line in (self.path / LOG).read_text(encoding="utf-8").splitlines():
            if len(self.records) == iterations:
                break
            self.records.append(json.loads(line))
        self._log.close()
        write_text(self.path / LOG, "".join(json.dumps(r) + "\n" for r in self.records))
        self._log = (self.path / LOG).open("a", encoding="utf-8")

    def save(self, model: SegmentationModel, name: str = WEIGHTS) -> None:
        """Write the weights."""
        try:
            save_weights(model, self.path / name)
        except SafetensorError as error:
            raise UserError(f"cannot write {self.path / name}: {error}") from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Write a checkpoint: all that the next iteration depends on, in one file."""
        try:
            with replacing(self.path / STATE) as partial:
                torch.save(state, partial)
        except RuntimeError as error:  # torch's word for a full disk
            raise UserError(f"cannot write {self.path / STATE}: {error}") from error

    def load_state(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None if the run had none yet."""
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
            raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        if not isinstance(state, dict) or "iteration" not in state:
            raise UserError(f"{path} is no checkpoint of a run")
        return state


def _require_same(path: Path, config_json: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot resume: {path} cannot be read: {error}") from error
    wanted = json.loads(config_json)
    changed = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if changed:
        raise UserError(f"cannot resume: {path} differs in {', '.join(changed)}")


def _locked(folder: Path) -> TextIO:
    """An open file that keeps other processes out of the folder until it is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(f"{folder} is in use by another training run") from error
    return file
