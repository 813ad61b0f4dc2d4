"""The folder of one training run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from swin_umamba.common.closing import Closing
from swin_umamba.common.files import reason_of, write_text
from swin_umamba.common.jsons import load_object
from swin_umamba.common.locks import LOCK, locked
from swin_umamba.common.partial import is_partial, sweep
from swin_umamba.drawing.overlays import FOLDER as OVERLAYS
from swin_umamba.errors import UserError
from swin_umamba.runs.log import LOG as LOG
from swin_umamba.runs.log import Record as Record
from swin_umamba.runs.log import read_log as read_log
from swin_umamba.runs.run_config import CONFIG as CONFIG
from swin_umamba.runs.run_config import RunConfig
from swin_umamba.runs.state import STATE as STATE
from swin_umamba.weights.places import BEST as BEST
from swin_umamba.weights.places import LAST

PLAN = "plan.json"
SPLITS = "splits.json"
ENVIRONMENT = "environment.json"
POSTPROCESSING = "postprocessing.json"  # postprocessing that improved validation scores
IMAGES = "images.json"  # images of a pretraining
PRETRAINED = "pretrained.json"  # report on every tensor of the initial weights
WEIGHTS = LAST
CURVES = "curves.png"
PICTURE = "picture.png"


def holds_run(folder: Path, config: str = CONFIG) -> bool:
    """Whether a run was started here; of the initial files, its config is written last.

    config: name of the config file, which determines the kind of run.
    """
    return (folder / config).is_file()


def require_free(folder: Path, config: str = CONFIG) -> None:
    """Raise UserError unless `folder` is missing, empty, or contains an interrupted start."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected a folder for the run")
    if folder.is_dir():
        found = {path.name for path in folder.iterdir() if not is_partial(path.name)}
        if config in found and LOG in found:
            raise UserError(
                f"{folder} already holds files of a run; name another folder, or resume it with"
                " --resume (in Python resume=True)"
            )
        if found - {LOCK, PLAN, SPLITS, ENVIRONMENT, PRETRAINED, IMAGES}:
            raise UserError(f"{folder} already holds files; name another folder for the run")


class RunFolder(Closing):
    """A run's files except its checkpoints: config, plan, splits, and the growing log.

    A context manager that keeps the folder locked against other processes; the lock ends with the
    process. Every file is written atomically except the log, which is appended line by line, each a
    JSON object. resume: continue in a folder with a run whose config differs in CHANGEABLE fields
    at most, which are then updated. files: further text files of a new run, by name. Raises
    UserError if the folder is not empty, in use, or not writable.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        files: Mapping[str, str] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        if not resume:
            require_free(path, config.FILE)
        elif not holds_run(path, config.FILE):
            raise UserError(f"cannot resume: {path} holds no {config.FILE}")
        self.path = path
        self._held = ExitStack()
        self._held.enter_context(locked(path, "training run"))
        self._log = -1
        try:
            sweep(path, alone=True)
            for drawn in path.glob(f"{OVERLAYS}/*"):
                sweep(drawn)
            if resume:
                require_same(path, config)
            else:
                require_free(
                    path, config.FILE
                )  # another process may have used it until a moment ago
                for name, text in (files or {}).items():
                    write_text(path / name, text)
            write_text(path / config.FILE, config.to_json())
            self._open_log()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        self._held.close()

    def log(self, record: Record) -> None:
        """Append a line; the operating system has it when this returns."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        try:
            if os.fstat(self._log).st_nlink == 0:
                raise UserError(f"{self.path / LOG} was removed during the run")
            while line:
                line = line[os.write(self._log, line) :]
        except OSError as error:
            raise UserError(f"cannot write {self.path / LOG}: {reason_of(error)}") from error

    def cut_log(self, iteration: int) -> list[Record]:
        """Drop the lines after an iteration, and any partial line of a killed run. Returns the
        rest."""
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
            raise UserError(f"cannot write {self.path / LOG}: {reason_of(error)}") from error


def require_same(folder: Path, config: RunConfig) -> None:
    """Raise UserError unless the run's config differs in CHANGEABLE fields at most; a field added
    since it was written is no difference."""
    path = folder / config.FILE
    found = type(config).load(path)
    written = config.migrated(load_object(path, f"a {config.WHAT}"))
    changed = [
        name
        for name in sorted(written.keys() - config.CHANGEABLE)
        if _as_json(getattr(found, name)) != _as_json(getattr(config, name))
    ]
    if changed:
        told = ", ".join(
            f"{n} is {getattr(found, n)!r}, not {getattr(config, n)!r}" for n in changed
        )
        raise UserError(f"cannot resume: in {path} {told}")


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
