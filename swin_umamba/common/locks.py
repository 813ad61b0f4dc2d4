"""Locks of folders, which end with the process that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from swin_umamba.common.files import reason_of
from swin_umamba.common.partial import sweep
from swin_umamba.errors import UserError

LOCK = ".lock"


class InUseError(UserError):
    """Another process holds the lock."""


@contextmanager
def locked(folder: Path, what: str, *, wait: float = 0.0, name: str = LOCK) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of a folder, which is made if missing.

    What dead processes left half written in it is swept.

    what: who holds it, as in "training run". wait: seconds to wait for another to end; -1: until
    it has. name: of the lock's file, where a folder has several. The lock is this process's own: it
    ends with it, whatever ends it, and processes forked from it do not keep it. Raises InUseError
    if the folder is in use, and UserError if it takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {reason_of(error)}") from error
    try:
        lock = FileLock(folder / name, timeout=wait)
        lock.acquire()
    except Timeout as error:
        raise InUseError(f"{folder} is in use by another {what}") from error
    except (OSError, NotImplementedError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"cannot lock {folder / name}: {reason}") from error
    try:
        sweep(folder)
        yield
    finally:
        lock.release()
