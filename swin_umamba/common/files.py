"""Atomic file writes, and the location of caches."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EIO, ENAMETOOLONG, ENOSPC
from pathlib import Path
from typing import Any, BinaryIO

from swin_umamba.common.partial import (
    followed,
    own_descriptor,
    partial_file,
    private_file,
    sweep,
    written_through,
)
from swin_umamba.errors import UserError

_BLOCK = 1 << 20  # bytes
_SWEPT: set[Path] = set()
_PLAIN = {
    ENOSPC: "the disk is full",
    EDQUOT: "the quota of this user or folder is used up",
    EIO: "the disk, or the network to it, fails",
    ENAMETOOLONG: "shorten the name",
}


@contextmanager
def replacing(path: Path, *, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` on success and is removed on error.

    The temporary file lies beside `path`, has a name unique to this process, and keeps the suffix,
    for libraries that look at it. A symbolic link is followed: its target is replaced. FIFOs and
    devices such as /dev/stdout are never replaced; the content is copied to them at the end. The
    data is flushed to disk before `path` is replaced. make_folder: create missing folders.

    Raises UserError, naming `path`, if it cannot be written. Other exceptions raised inside the
    context propagate unchanged.
    """
    try:
        target = followed(path)
        if written_through(target):
            with private_file(target) as partial:
                yield partial
                _append(partial, target)
            return
        if make_folder:
            _make(target.parent)
        _sweep_once(target.parent)
        with partial_file(target) as partial:
            mode = partial.stat().st_mode
            yield partial
            # Some libraries replace the file by one that only its owner may read.
            if partial.stat().st_mode != mode:
                partial.chmod(mode)
            to_disk(partial)
            partial.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises UserError if that fails."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file atomically. Raises UserError if that fails."""
    write_bytes(path, content.encode())


@contextmanager
def file_for_torch(path: Path) -> Iterator[BinaryIO]:
    """An open file for torch's writers, which ignore a full disk or abort the process.

    Raises OSError at the end if anything could not be written.
    """
    with path.open("wb") as file:
        sink = _Sink(file)
        try:
            yield sink  # type: ignore[misc]  # it is one but in name
            file.flush()
        except RuntimeError as error:
            if sink.error is not None:
                raise sink.error from error
            raise
    if sink.error is not None:
        raise sink.error


class _Sink(io.RawIOBase):
    """Accepts every write. The first error is kept, and everything after it is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._kept(lambda: self._file.seek(offset, whence), 0)

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        return self._kept(lambda: self._file.write(content), size)

    def _kept(self, act: Callable[[], int], otherwise: int) -> int:
        # torch's writers finish their files when they are garbage-collected, perhaps after an
        # error.
        if self.error is None and not self._file.closed:
            try:
                return act()
            except OSError as error:
                self.error = error
        return otherwise


def to_disk(path: Path) -> None:
    """Wait until a file's content is on disk. Raises OSError if the disk is full or fails."""
    with path.open("r+b") as file:  # Windows refuses this for files opened for reading only
        os.fsync(file.fileno())


def reason_of(error: OSError) -> str:
    """What went wrong, in the system's words, or in plainer ones where those are unclear."""
    plain = _PLAIN.get(error.errno or 0)
    return (error.strerror or str(error)) + ("" if plain is None else f" ({plain})")


def resolved(path: Path) -> Path:
    """The absolute path with symbolic links resolved; in a link cycle, as far as it leads.

    Path.resolve raises RuntimeError for a cycle, so opening the file could not report the reason.
    """
    return Path(os.path.realpath(path))


def sha256(path: str | os.PathLike[str]) -> str:
    """A file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_dir() -> Path:
    """The folder for preprocessed datasets and downloads: $SWIN_UMAMBA_CACHE, or the platform's
    cache folder."""
    named = os.environ.get("SWIN_UMAMBA_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "swin-umamba"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {reason_of(error)}") from error


def _sweep_once(folder: Path) -> None:
    """Remove what dead processes left in a folder, the first time this process writes there."""
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        sweep(folder)


def _opened(target: Path, own: int | None) -> BinaryIO:
    return target.open("ab") if own is None else os.fdopen(os.dup(own), "ab")


def _append(source: Path, target: Path) -> None:
    """Copy a file's content into a target that cannot be replaced."""
    own = own_descriptor(target)
    if own is not None:
        with suppress(ValueError):  # stdout is closed
            sys.stdout.flush()
    # Use this process's own open file: opening it again would give another file position.
    with source.open("rb") as content, _opened(target, own) as stream:
        while block := content.read(_BLOCK):
            stream.write(block)
