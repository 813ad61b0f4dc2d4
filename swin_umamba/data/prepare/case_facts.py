"""Read every case once: check that its files fit together, and collect statistics."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.datasets.dataset import CaseFiles, Dataset, read_case
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.data.io.raw import RawImage, read_labels
from swin_umamba.data.prepare.cropping import nonzero_box

# Intensities kept in memory, over all cases together, sampled in equal shares.
SAMPLES = 10_000_000

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class CaseFacts:
    """Statistics of one case.

    shape, cropped: (Z, H, W) of the image, and of its nonzero part; spacing (z, y, x). pixels:
    number of pixels of each class, background first; ignored: number of unannotated pixels; both
    None without a mask. foreground, anywhere: intensities (C, n) of the pixels of classes above 0
    in the cropped part, and of any of its pixels: all of them, or a random sample.
    """

    name: str
    shape: Shape
    cropped: Shape
    spacing: tuple[float, float, float]
    pixels: tuple[int, ...] | None
    ignored: int
    foreground: npt.NDArray[Any]
    anywhere: npt.NDArray[Any]


def read_facts(
    dataset: Dataset,
    cases: Sequence[CaseFiles],
    *,
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[CaseFacts, ...]:
    """Read the cases with every check of `read_case`, and their instance maps if any.

    on_progress receives the number of cases done and the total. Raises one UserError that lists all
    problems.
    """
    problems, found = Problems(dataset.folder), []
    share = max(SAMPLES // max(len(cases), 1), 1)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        try:
            reading = [pool.submit(_read, dataset, files, share) for files in cases]
            for done, future in enumerate(reading, 1):
                with problems.collected():
                    found.append(future.result())
                if on_progress is not None:
                    on_progress(done, len(cases))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    problems.raise_any()
    return tuple(found)


def _read(dataset: Dataset, files: CaseFiles, samples: int) -> CaseFacts:
    raw, classes = read_case(
        files,
        channels=len(dataset.channel_names),
        values=dataset.values,
        ignore_label=dataset.ignore_label,
    )
    if files.instances is not None:
        read_labels(files.instances, raw)
    box = nonzero_box(raw.pixels)
    inside = raw.pixels[(slice(None), *box)]
    rng = np.random.default_rng(zlib.crc32(files.name.encode()))
    counts, ignored, places = None, 0, np.empty(0, np.int64)
    if classes is not None:
        ignored, *each = _counts(classes, len(dataset.values)).tolist()
        counts = tuple(each)
        places = np.flatnonzero(classes[box] > 0)
        if len(places) > samples:
            places = places[rng.integers(len(places), size=samples)]
    pixels = inside[0].size
    anywhere = rng.integers(pixels, size=samples // 10) if pixels > samples // 10 else None
    return CaseFacts(
        name=files.name,
        shape=_shape(raw),
        cropped=_three(inside.shape[1:]),
        spacing=raw.spacing,
        pixels=counts,
        ignored=ignored,
        foreground=_at(inside, places),
        anywhere=inside.reshape(len(inside), -1) if anywhere is None else _at(inside, anywhere),
    )


def _counts(classes: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """Number of ignored pixels, then of pixels of each class; slice by slice to save memory."""
    counts = np.zeros(number + 1, np.int64)
    for part in classes:
        # Shifted by one, since -1 means ignored.
        counts += np.bincount(part.ravel() + 1, minlength=number + 1)
    return counts


def _at(pixels: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The pixels (C, n) at flat indices of (C, Z, H, W)."""
    z, y, x = np.unravel_index(places, pixels.shape[1:])
    return pixels[:, z, y, x]


def _shape(raw: RawImage) -> Shape:
    return _three(raw.pixels.shape[1:])


def _three(shape: tuple[int, ...]) -> Shape:
    z, h, w = shape
    return z, h, w
