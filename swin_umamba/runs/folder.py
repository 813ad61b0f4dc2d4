"""The folder of one training run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from swin_umamba.common.files import write_text
from swin_umamba.errors import UserError
from swin_umamba.runs.config import CHANGEABLE

CONFIG = "config.json"
PLAN = "plan.json"
SPLITS = "splits.json"
ENVIRONMENT = "environment.json"
PRETRAINED = "pretrained.json"  # what became of every tensor of the weights to start from
LOG = "log.jsonl"
WEIGHTS = "model.safetensors"  # the last
BEST = "best.safetensors"
STATE = "state.pt"
LOCK = ".lock"
CURVES = "curves.png"
PICTURE = "picture.png"

Record = dict[str, Any]


def holds_run(folder: Path) -> bool:
    """Whether a run was started here; its config is written last of the files of a start."""
    return (folder / CONFIG).is_file()


def require_free(folder: Path) -> None:
    """Raise UserError unless `folder` is missing or empty, but for a start that was cut short."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected a folder for the run")
    if folder.is_dir():
        found = {path.name for path in folder.iterdir() if ".partial." not in path.name}
        if CONFIG in found and LOG in found:
            raise UserError(
                f"{folder} already holds files of a run; name another folder, or resume it"
            )
        if found - {LOCK, PLAN, SPLITS, ENVIRONMENT, PRETRAINED}:
            raise UserError(f"{folder} already holds files; name another folder for the run")


class RunFolder:
    """A run's files but for its checkpoints: config, plan, splits, and a log that grows.

    A context manager that keeps the folder locked against other processes; the lock goes with the
    process. Every file but the log is written whole or not at all; the log is written line by
    line, each a JSON object. resume: go on in a folder that holds a run, of a config that differs
    in CHANGEABLE fields alone, which are then written. files: further text files of a new run, by
    name. Raises UserError if the folder is taken, in use, or cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        config_json: str,
        files: Mapping[str, str] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        if not resume:
            require_free(path)
        elif not holds_run(path):
            raise UserError(f"cannot resume: {path} holds no {CONFIG}")
        self.path = path
        self._lock = _locked(path)
        self._log = -1
        try:
            if resume:
                _require_same(path / CONFIG, config_json)
            else:
                require_free(path)  # another process may have used it until a moment ago
                for name, text in (files or {}).items():
                    write_text(path / name, text)
            write_text(path / CONFIG, config_json)
            self._open_log()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        self._lock.close()

    def log(self, record: Record) -> None:
        """Add a line; the system has it when this returns."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._log, line) :]
        except OSError as error:
            raise UserError(f"cannot write {self.path / LOG}: {error.strerror}") from error

    def cut_log(self, iteration: int) -> list[Record]:
        """Drop the lines after an iteration, half a line of a killed run too. Returns the rest."""
        records = read_log(self.path, iteration)
        write_text(self.path / LOG, "".join(json.dumps(record) + "\n" for record in records))
        self._open_log()
        return records

    def _open_log(self) -> None:
        if self._log >= 0:
            os.close(self._log)
        try:
            self._log = os.open(self.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            self._log = -1
            raise UserError(f"cannot write {self.path / LOG}: {error.strerror}") from error


def read_log(folder: Path, iteration: int | None = None) -> list[Record]:
    """A run's records up to an iteration, in their order; half a line at the end does not count.

    Raises UserError, naming the file, if it cannot be read or an earlier line is damaged.
    """
    path = folder / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            if iteration is not None and record["iteration"] > iteration:
                break
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged in line {number}: {error}") from error
        records.append(record)
    return records


def _require_same(path: Path, config_json: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot resume: {path} cannot be read: {error}") from error
    wanted = json.loads(config_json)
    changed = sorted(
        name
        for name in wanted.keys() | found.keys()
        if wanted.get(name) != found.get(name) and name not in CHANGEABLE
    )
    if changed:
        told = ", ".join(f"{n} is {found.get(n)!r}, not {wanted.get(n)!r}" for n in changed)
        raise UserError(f"cannot resume: in {path} {told}")


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
        if isinstance(error, BlockingIOError):
            raise UserError(f"{folder} is in use by another training run") from error
        raise UserError(f"cannot lock {folder / LOCK}: {error.strerror}") from error
    return file
