"""Folder locks that end with the process that holds them."""

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
    """Hold a folder's lock, so that other processes asking for it wait or fail; created if missing.

    Files that dead processes left half written in it are removed.

    what: the holder, as in "training run". wait: seconds to wait for another holder; -1 waits
    forever. name: file name of the lock, if a folder has several. The lock belongs to this process:
    it ends with it in any case, and forked processes do not keep it. Raises InUseError if the
    folder is in use, and UserError if it is not writable.
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
