"""Probabilities of all classes of a whole image, on disk: memory may not hold them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data import Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.resampling import resample_image
from swin_umamba.errors import UserError

_DTYPE = np.dtype(np.float32)


class ScratchError(UserError):
    """The disk does not take them."""


class Scratch:
    """(Z, K, h, w) float32 in a nameless file, written in bands of rows and read as an array."""

    def __init__(self, file: Any, shape: tuple[int, int, int, int], folder: Path) -> None:
        self.shape = shape
        self._file = file
        self._folder = folder

    def write(self, z: int, start: int, band: npt.NDArray[np.float32]) -> None:
        """Rows from `start` on, (K, rows, w), of slice z. Raises ScratchError on a full disk."""
        for k, rows in enumerate(band):
            self._write(z, k, start, rows)

    def _write(self, z: int, k: int, start: int, rows: npt.NDArray[np.float32]) -> None:
        _, classes, height, width = self.shape
        place = ((z * classes + k) * height + start) * width
        # By a file's own write: one through a memory map dies of a full disk.
        with self._told():
            self._file.seek(place * _DTYPE.itemsize)
            self._file.write(np.ascontiguousarray(rows, _DTYPE).data)

    def read(self) -> npt.NDArray[np.float32]:
        """All that was written, of which memory holds what is looked at."""
        with self._told():
            self._file.flush()
        found: npt.NDArray[np.float32] = np.memmap(self._file, _DTYPE, "r", shape=self.shape)
        return found

    def restored(self, plan: Plan, raw: RawImage) -> npt.NDArray[np.float32]:
        """`plan.restore` of all that was written, (K, Z, H, W), class by class of each slice."""
        found = self.read()
        height, width = (n for i, n in enumerate(raw.pixels.shape[1:]) if i != plan.axis)
        if (height, width) != found.shape[2:]:
            with scratch(self._folder, (*self.shape[:2], height, width)) as larger:
                for z, k in np.ndindex(*self.shape[:2]):
                    plane = resample_image(
                        np.array(found[z : z + 1, k : k + 1]), (height, width), order=1
                    )
                    larger._write(z, k, 0, plane[0, 0])
                found = larger.read()  # an array that outlives its file's handle
        restored: npt.NDArray[np.float32] = np.moveaxis(found, 0, plan.axis + 1)
        return restored

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ScratchError(f"cannot write in {self._folder}: {error.strerror}") from error


@contextmanager
def scratch(folder: Path, shape: tuple[int, int, int, int]) -> Iterator[Scratch]:
    """A Scratch in a folder, which is made if missing; gone at the end, and after a kill, too.

    Raises ScratchError if the folder takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside what is written in the end: a place for temporary files may be in memory.
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (below)
    except OSError as error:
        raise ScratchError(f"cannot write in {folder}: {error.strerror}") from error
    with file:
        yield Scratch(file, shape, folder)
