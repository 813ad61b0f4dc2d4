"""One network with its plan: from an image to probabilities on the image's grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.data import Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.placement import Placement
from swin_umamba.data.prepare.slices import ArraySlices, Slices
from swin_umamba.errors import UserError
from swin_umamba.inference.arriving import on_host
from swin_umamba.inference.bands import Band, Frame
from swin_umamba.inference.budget import require_affordable
from swin_umamba.inference.network import Checked, Mirrored, Network
from swin_umamba.inference.restoring import RowResampler
from swin_umamba.inference.windows import Windows, logits_in_bands

SLICES = 16  # slices whose windows share batches
BYTE_CLASSES = 256
# values of the logits of a group of slices, unless one slice alone needs more
HELD_VALUES = 1 << 26

Floats = npt.NDArray[np.float32]


class Member:
    """A network, the plan of its run, and its windows.

    mirror: average the logits of windows and their mirror images, as nnU-Net does. spaced: whether
    the plan knows about spacing; if not, images keep their own grid. Raises UserError if network
    and plan do not match.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        windows: Windows,
        *,
        mirror: bool = False,
        spaced: bool = True,
    ) -> None:
        found = (network.in_channels, network.out_channels)
        expected = (plan.in_channels, plan.num_outputs)
        if found != expected:
            raise UserError(
                f"{network.name} belongs to another model: {found[0]} channels and {found[1]}"
                f" classes, expected {expected[0]} and {expected[1]} as in its plan"
            )
        self.network, self.plan, self.windows = network, plan, windows
        self.spaced = spaced
        self._logits = Checked(Mirrored(network) if mirror else network)
        height, width = windows.size
        require_affordable(
            windows.batch_size * max(plan.in_channels, plan.num_outputs) * height * width,
            f"a batch of {windows.batch_size} windows of {height}x{width} pixels",
            "choose a smaller patch size",
        )

    def on_slices(self, slices: Floats | Slices, *, decided: bool = False) -> Iterator[Band]:
        """The probabilities of preprocessed slices (Z, C, h, w), on their own grid.

        decided: yield class indices instead, decided by the plan. Processes groups of slices one
        after another, each from top to bottom. Raises UserError for slices that do not match, and
        NonFiniteError, naming the model, for non-finite logits.
        """
        whole = ArraySlices(slices) if isinstance(slices, np.ndarray) else slices
        depth, channels, _, width = whole.shape
        if channels != self.network.in_channels:
            raise ValueError(
                f"slices: got {channels} channels, expected {self.network.in_channels}"
            )
        held = self.plan.num_outputs * self.windows.size[0] * width
        require_affordable(held, "the logits of a row of windows", "the image is too wide")
        at_once = min(max(HELD_VALUES // held, 1), SLICES)
        finish = self._labels if decided else self._probabilities
        for first in range(0, depth, at_once):
            group = whole.part(first, first + at_once)
            logits = logits_in_bands(self._logits, group, self.windows, self.network.device)
            for row, values in on_host(logits, finish, self.network.name):
                yield Band(first, row, values)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.plan.activation == "softmax" else logits.sigmoid()

    def _labels(self, logits: Tensor) -> Tensor:
        """The plan's decisions on the probabilities, on their device."""
        found = self.plan.decide_tensor(self._probabilities(logits), axis=1)
        return found.to(torch.uint8 if self.plan.num_classes <= BYTE_CLASSES else torch.int32)

    def on_image(self, raw: RawImage) -> Iterator[Band]:
        """The probabilities of an image on the grid of its files, in slices along
        `plan.axis_of(raw)`.

        Raises UserError, naming the file, if it does not match the plan or if resampling would
        exceed memory.
        """
        placement, slices = self._opened(raw)
        frame = Frame(placement, self.plan.outside)
        for band in self._restored(slices, placement):
            yield frame.around(band)
        yield from frame.rest()

    def segment(self, raw: RawImage, labels: npt.NDArray[Any]) -> None:
        """Write an image's class indices into zeros (Z, H, W), in slices along
        `plan.axis_of(raw)`.

        Cropped-off pixels stay 0, the background. Errors as in `on_image`.
        """
        placement, slices = self._opened(raw)
        inside = labels[placement.part]
        if placement.size == placement.kept:
            for band in self.on_slices(slices, decided=True):
                band.of(inside)[...] = band.values
            return
        for band in self._restored(slices, placement):
            band.of(inside)[...] = self.plan.decide(band.values, axis=1)

    def _opened(self, raw: RawImage) -> tuple[Placement, Slices]:
        if not self.spaced:
            raw = dataclasses.replace(raw, spacing=(1.0, *self.plan.spacing))
        placement = self.plan.placement(raw)
        return placement, self.plan.slices(raw, placement)

    def _restored(self, slices: Slices, placement: Placement) -> Iterator[Band]:
        """The probabilities of slices on the grid from which they were resampled."""
        size, own = placement.size, placement.kept
        resampler: RowResampler | None = None
        for band in self.on_slices(slices):
            if size == own:
                yield band
                continue
            if band.row == 0:
                resampler = RowResampler(size, own)
            assert resampler is not None
            row = resampler.done
            values = resampler.push(band.values)
            if values.shape[-2]:
                yield Band(band.first, row, values)
