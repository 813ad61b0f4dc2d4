"""Files on disk: written whole or not at all, and where caches lie."""

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
    """A path to write to; it becomes `path` at the end, or is gone after an error.

    It lies beside `path`, under a name that no other process uses, and ends as `path` does, for
    libraries that go by the suffix. A symbolic link stays one: the file that it leads to is
    replaced. FIFOs and devices, /dev/stdout among them, are never replaced: they are written to at
    the end. What is written is on disk before it takes the place of `path`. make_folder: missing
    folders are made.

    Raises UserError, naming `path`, if it cannot be written; whatever else is raised meanwhile goes
    on as it is.
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
            # Some libraries replace the file by one that nobody else may read.
            if partial.stat().st_mode != mode:
                partial.chmod(mode)
            to_disk(partial)
            partial.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises UserError if that fails."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file whole or not at all. Raises UserError if that fails."""
    write_bytes(path, content.encode())


@contextmanager
def file_for_torch(path: Path) -> Iterator[BinaryIO]:
    """An open file for torch's writers, which say nothing of a full disk, or end the process.

    Raises OSError at the end for what could not be written.
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
    """Takes whatever is written. The first error is kept, and what comes after it is dropped."""

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
        # torch's writers end their files when they are deleted, perhaps after an error.
        if self.error is None and not self._file.closed:
            try:
                return act()
            except OSError as error:
                self.error = error
        return otherwise


def to_disk(path: Path) -> None:
    """Wait until the disk has a file's content. Raises OSError, as on a full or failing disk."""
    with path.open("r+b") as file:  # Windows refuses it for files that are only read
        os.fsync(file.fileno())


def reason_of(error: OSError) -> str:
    """What went wrong in the system's words, and in plain ones where those are not."""
    plain = _PLAIN.get(error.errno or 0)
    return (error.strerror or str(error)) + ("" if plain is None else f" ({plain})")


def resolved(path: Path) -> Path:
    """The absolute path without symbolic links; of a circle of links, as far as it leads.

    Path.resolve raises RuntimeError there, and lets nobody open the file and be given the reason.
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
    """Where preprocessed datasets and downloads are kept: $SWIN_UMAMBA_CACHE, or the platform's
    place for caches."""
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
    """Remove what dead processes left there, the first time that this one writes there."""
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        sweep(folder)


def _opened(target: Path, own: int | None) -> BinaryIO:
    return target.open("ab") if own is None else os.fdopen(os.dup(own), "ab")


def _append(source: Path, target: Path) -> None:
    """Copy a file's content into what cannot be replaced."""
    own = own_descriptor(target)
    if own is not None:
        with suppress(ValueError):  # a stdout that is closed
            sys.stdout.flush()
    # One's own open file as such: opened once more it would have another position.
    with source.open("rb") as content, _opened(target, own) as stream:
        while block := content.read(_BLOCK):
            stream.write(block)
