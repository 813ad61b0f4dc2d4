"""What a dataset is like: sizes, spacings, intensities, how frequent each class is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swin_umamba.common.records import record
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset
from swin_umamba.data.prepare.case_facts import CaseFacts, Shape, read_facts


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

    shapes: (Z, H, W); cropped: of the part of each that is not zero; spacings: (z, y, x);
    intensities: one a channel; pixels: how many are of each class, the background first; ignored:
    how many have no truth.
    """

    cases: tuple[str, ...]
    shapes: tuple[Shape, ...]
    cropped: tuple[Shape, ...]
    spacings: tuple[tuple[float, float, float], ...]
    intensities: tuple[Intensity, ...]
    pixels: tuple[int, ...]
    ignored: int

    @property
    def frequencies(self) -> tuple[float, ...]:
        """The share of each class in all pixels with truth."""
        return tuple(count / max(sum(self.pixels), 1) for count in self.pixels)

    @property
    def relative_size(self) -> float:
        """How much of an image is left after the crop, in the median: 0..1."""
        kept = np.prod(self.cropped, axis=1) / np.prod(self.shapes, axis=1)
        return float(np.median(kept))


def take_fingerprint(
    dataset: Dataset,
    cases: Sequence[CaseFiles] | None = None,
    *,
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read the cases, all by default, and check each as `read_case` does.

    Intensities are of the foreground in the part of each image that is not zero, of any pixels of
    it if no case has foreground. As in nnU-Net every case counts alike, however large its
    foreground; unlike there, all of it is taken up to 10 million pixels of all cases together, in
    place of a sample with replacement. on_progress is given how many cases are done, and of how
    many. Raises one UserError that lists what is wrong with any case.
    """
    cases = dataset.cases if cases is None else cases
    return fingerprint_of(
        read_facts(dataset, cases, threads=threads, on_progress=on_progress), dataset
    )


def fingerprint_of(facts: Sequence[CaseFacts], dataset: Dataset) -> Fingerprint:
    """The fingerprint of cases that have been read."""
    pixels = np.zeros(len(dataset.values), np.int64)
    for case in facts:
        pixels += np.array(case.pixels or 0)
    samples = [case.foreground for case in facts if case.foreground.size]
    samples = samples or [case.anywhere for case in facts]
    return Fingerprint(
        cases=tuple(case.name for case in facts),
        shapes=tuple(case.shape for case in facts),
        cropped=tuple(case.cropped for case in facts),
        spacings=tuple(case.spacing for case in facts),
        intensities=tuple(
            _intensity([case[channel] for case in samples])
            for channel in range(len(dataset.channel_names))
        ),
        pixels=tuple(pixels.tolist()),
        ignored=sum(case.ignored for case in facts),
    )


def _intensity(cases: Sequence[npt.NDArray[np.generic]]) -> Intensity:
    """Of pixels (n,) of each case, which count alike."""
    values = np.concatenate(cases).astype(np.float64)
    weights = np.concatenate([np.full(len(case), 1 / len(case)) for case in cases])
    mean = float(np.average(values, weights=weights))
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order]
    # With equal weights these are numpy's percentiles.
    ranks = np.array((0.005, 0.5, 0.995)) * (len(cases) - len(cases) / len(values))
    low, median, high = np.interp(ranks, below, values[order]).tolist()
    return Intensity(mean, std, median, low, high)
