"""Storage for all class probabilities of an image: in memory if small, else on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.errors import UserError

IN_MEMORY = 1 << 26  # bytes
_DTYPE = np.dtype(np.float32)
_BLOCK = bytes(1 << 20)


class ScratchError(UserError):
    """The disk has no room for them."""


@contextmanager
def scratch(folder: Path | None, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.float32]]:
    """A writable array of zeros; above 64 MiB, in an anonymous file that is freed with it.

    folder: where the file is created, including missing folders; by default the temporary folder.
    All disk space is allocated at once. Raises ScratchError if the folder has no room or is not
    writable.
    """
    size = int(np.prod(shape, dtype=np.int64)) * _DTYPE.itemsize
    if size <= IN_MEMORY:
        yield np.zeros(shape, _DTYPE)
        return
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (below)
    except OSError as error:
        raise ScratchError(f"cannot write in {folder}: {error.strerror}") from error
    with file:
        try:
            _reserve(file, size)
        except OSError as error:
            raise ScratchError(
                f"cannot write {size / 1e9:.1f} GB of probabilities in"
                f" {folder or tempfile.gettempdir()}: {error.strerror}"
            ) from error
        yield np.memmap(file, _DTYPE, "r+", shape=shape)


def _reserve(file: Any, size: int) -> None:
    """Allocate the file's blocks now: writing to a memory map on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, len(_BLOCK)):
        file.write(_BLOCK[: size - start])
    file.flush()
