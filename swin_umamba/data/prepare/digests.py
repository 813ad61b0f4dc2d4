"""File digests, recomputed only if a file has changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_umamba.errors import UserError

_BLOCK = 1 << 20  # bytes
# Size, modification time, status change time: copying tools cannot set back the last.
Stamp = tuple[int, int, int]


class FileDigests:
    """Digests of files by path. known: the `known` of an earlier instance."""

    def __init__(self, known: Mapping[str, tuple[Stamp, str]] | None = None) -> None:
        self._known = dict(known or {})
        self._lock = threading.Lock()

    @property
    def known(self) -> dict[str, tuple[Stamp, str]]:
        """The stamp and digest of each path, for another process."""
        with self._lock:
            return dict(self._known)

    def of(self, path: Path) -> str:
        """The digest of a file's content. Raises UserError if it cannot be read."""
        try:
            stamp, name = stamp_of(path), str(path.absolute())
            with self._lock:
                found = self._known.get(name)
            if found is not None and tuple(found[0]) == stamp:
                return found[1]
            digest = _digest(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        with self._lock:
            self._known[name] = (stamp, digest)
        return digest


def stamp_of(path: Path) -> Stamp:
    """A stamp that changes with a file. Raises OSError if it is missing."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _digest(path: Path) -> str:
    content: Any = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return str(content.hexdigest())
