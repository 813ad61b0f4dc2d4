"""Files on disk: written whole or not at all, and where caches lie."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swin_umamba.errors import UserError

_BLOCK = 1 << 20  # bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` at the end, or is gone after an error.

    It ends as `path` does, for libraries that go by the suffix. Missing folders are made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        # Some libraries replace the file by one that nobody else may read.
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises UserError if that fails."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file whole or not at all. Raises UserError if that fails."""
    write_bytes(path, content.encode())


@contextmanager
def written_by_torch(path: Path) -> Iterator[None]:
    """Raise a UserError that names `path` for what torch's writer raises in OSError's place."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot write {path}: {reason}") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """A file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Where downloads are kept: $SWIN_UMAMBA_CACHE, or the platform's place for caches."""
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
