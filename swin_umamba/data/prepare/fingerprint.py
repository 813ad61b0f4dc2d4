"""Statistics of a dataset: sizes, spacings, intensities, class frequencies."""

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
    """Foreground intensities of one channel over the whole dataset, in the files' unit."""

    mean: float
    std: float
    median: float
    low: float  # percentile 0.5
    high: float  # percentile 99.5


@dataclass(frozen=True)
class Fingerprint:
    """Statistics of the cases, in their order.

    shapes: (Z, H, W); cropped: of the nonzero part of each; spacings: (z, y, x); intensities: one
    per channel; pixels: number of pixels of each class, background first; ignored: number of
    unannotated pixels.
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
        """Each class's fraction of the annotated pixels."""
        return tuple(count / max(sum(self.pixels), 1) for count in self.pixels)

    @property
    def relative_size(self) -> float:
        """Median fraction of an image that remains after cropping: 0..1."""
        kept = np.prod(self.cropped, axis=1) / np.prod(self.shapes, axis=1)
        return float(np.median(kept))


def take_fingerprint(
    dataset: Dataset,
    cases: Sequence[CaseFiles] | None = None,
    *,
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read the cases, all by default, checking each as `read_case` does.

    Intensities are sampled from the foreground within the nonzero part of each image, or from all
    pixels of that part if no case has foreground. As in nnU-Net, every case counts alike regardless
    of the size of its foreground; unlike nnU-Net, all of the foreground is used up to 10 million
    pixels over all cases, instead of a sample with replacement. on_progress receives the number of
    cases done and the total. Raises one UserError that lists all problems.
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
    """From pixels (n,) of each case; cases count alike."""
    values = np.concatenate(cases).astype(np.float64)
    weights = np.concatenate([np.full(len(case), 1 / len(case)) for case in cases])
    mean = float(np.average(values, weights=weights))
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order]
    # With equal weights these equal numpy's percentiles.
    ranks = np.array((0.005, 0.5, 0.995)) * (len(cases) - len(cases) / len(values))
    low, median, high = np.interp(ranks, below, values[order]).tolist()
    return Intensity(mean, std, median, low, high)
