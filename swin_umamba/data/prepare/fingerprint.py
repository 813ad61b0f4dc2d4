"""What a dataset is like: sizes, spacings, intensities, how frequent each class is."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swin_umamba.common.records import record
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset, read_case

# As nnU-Net: so many foreground pixels of each case speak for its intensities.
SAMPLES_PER_CASE = 10_000


@record
class Intensity:
    """One channel's intensities on the foreground of the whole dataset, in the files' unit."""

    mean: float
    std: float
    median: float
    low: float  # percentile 0.5
    high: float  # percentile 99.5


@dataclass(frozen=True)
class Fingerprint:
    """Facts of the cases looked at, in their order.

    shapes: (Z, H, W); spacings: (z, y, x); intensities: one a channel; pixels: how many are of
    each class, the background first; ignored: how many have no truth.
    """

    cases: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    spacings: tuple[tuple[float, float, float], ...]
    intensities: tuple[Intensity, ...]
    pixels: tuple[int, ...]
    ignored: int

    @property
    def frequencies(self) -> tuple[float, ...]:
        """The share of each class in all pixels with truth."""
        return tuple(count / max(sum(self.pixels), 1) for count in self.pixels)


def take_fingerprint(
    dataset: Dataset,
    cases: Sequence[CaseFiles] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read the cases, all by default, and check each as `read_case` does.

    Intensities are of up to 10,000 foreground pixels of each case, of any pixels if no case has
    foreground; they are drawn at random, the same in every call. on_progress is
    given how many cases are done, and of how many. Raises UserError for what is wrong with a case.
    """
    cases = dataset.cases if cases is None else cases
    shapes, spacings, foreground, anywhere = [], [], [], []
    pixels = np.zeros(len(dataset.values), np.int64)
    ignored = 0
    for done, files in enumerate(cases, start=1):
        raw, classes = read_case(
            files,
            channels=len(dataset.channel_names),
            values=dataset.values,
            ignore_label=dataset.ignore_label,
        )
        shapes.append(_three(raw.pixels.shape[1:]))
        spacings.append(raw.spacing)
        rng = np.random.default_rng(zlib.crc32(files.name.encode()))
        flat = raw.pixels.reshape(raw.pixels.shape[0], -1)
        if classes is not None:
            counts = np.bincount(classes.ravel() + 1, minlength=len(pixels) + 1)
            ignored += int(counts[0])
            pixels += counts[1:]
            places = np.flatnonzero(classes > 0)
            if len(places) > SAMPLES_PER_CASE:
                places = places[rng.integers(len(places), size=SAMPLES_PER_CASE)]
            foreground.append(flat[:, places].astype(np.float64))
        places = rng.integers(flat.shape[1], size=min(flat.shape[1], SAMPLES_PER_CASE))
        anywhere.append(flat[:, places].astype(np.float64))
        if on_progress is not None:
            on_progress(done, len(cases))
    samples = foreground if any(part.size for part in foreground) else anywhere
    return Fingerprint(
        cases=tuple(files.name for files in cases),
        shapes=tuple(shapes),
        spacings=tuple(spacings),
        intensities=tuple(_intensity(channel) for channel in np.concatenate(samples, axis=1)),
        pixels=tuple(pixels.tolist()),
        ignored=ignored,
    )


def _intensity(values: npt.NDArray[np.float64]) -> Intensity:
    low, median, high = np.percentile(values, (0.5, 50, 99.5)).tolist()
    return Intensity(float(values.mean()), float(values.std()), median, low, high)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, h, w = shape
    return z, h, w
