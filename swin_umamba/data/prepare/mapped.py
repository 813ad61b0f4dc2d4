"""Memory-mapped .npy files that are checked before they are accessed."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.errors import UserError

# NumPy parses headers by `ast`, which Python before 3.11.8 can fail to do in several threads at a
# time, with "SystemError: AST constructor recursion depth mismatch" (cpython issue 106905).
_PARSING = threading.Lock()


class MappedArray:
    """An array of a file written by `save_array`, read on access.

    Raises UserError, naming the file, if it is missing, damaged, or shorter than its array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("its format is of another version")
                with _PARSING:
                    header = np.lib.format.read_array_header_1_0(file)
                shape, by_columns, dtype = header
                if by_columns or dtype.hasobject or min(shape, default=0) < 0:
                    raise ValueError("it holds no plain array")
                start = file.tell()
                self._end = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
                self._map: mmap.mmap | None = None
                self._check(os.fstat(file.fileno()).st_size)
                # An empty section cannot be mapped, and need not be.
                if self._end > start:
                    self._map = mmap.mmap(file.fileno(), self._end, access=mmap.ACCESS_READ)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        content = np.frombuffer(self._map or b"", dtype, offset=start if self._map else 0)
        self._array: npt.NDArray[Any] = content.reshape(shape)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The array. A file truncated since it was opened is an error: reading it would kill the
        process."""
        if self._map is not None:
            self._check(self._map.size())
        return self._array

    def _check(self, size: int) -> None:
        if size < self._end:
            raise UserError(
                f"{self.path} cannot be read: it has {size} bytes, expected {self._end}"
            )


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """np.save with the system's error for a full disk; on disk when it returns."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())
