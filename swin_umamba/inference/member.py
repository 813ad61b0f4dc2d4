"""One network with its plan: from an image to probabilities on that image's own grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from swin_umamba.data import Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.errors import UserError
from swin_umamba.inference.bands import Band, Frame
from swin_umamba.inference.budget import require_affordable
from swin_umamba.inference.network import Checked, Mirrored, Network, require_finite_logits
from swin_umamba.inference.restoring import RowResampler
from swin_umamba.inference.windows import Windows, logits_in_bands

SLICES = 16  # whose windows share batches
HELD_VALUES = 1 << 26  # logits of the windows of a group of slices, unless those of one are more


class Member:
    """A network, the plan of its run, and its windows.

    mirror: average the logits of windows and their mirror images, as nnU-Net does. spaced: whether
    the plan knows of spacings; if not, images keep their own grid. Raises UserError for a network
    and a plan that do not fit together.
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
                f"{network.name} is of another model: for {found[0]} channels and {found[1]}"
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

    def on_slices(self, slices: npt.NDArray[np.float32]) -> Iterator[Band]:
        """The probabilities of slices (Z, C, h, w) that are preprocessed, on their own grid.

        Groups of slices one after another, each from top to bottom. Raises UserError for slices
        that do not fit, and NonFiniteError, naming the model, for logits that are not finite.
        """
        depth, channels, _, width = slices.shape
        if channels != self.network.in_channels:
            raise ValueError(
                f"slices: got {channels} channels, expected {self.network.in_channels}"
            )
        held = self.plan.num_outputs * self.windows.size[0] * width
        require_affordable(held, "the logits of a row of windows", "the image is too wide")
        at_once = min(max(HELD_VALUES // held, 1), SLICES)
        for first in range(0, depth, at_once):
            group = slices[first : first + at_once]
            for row, logits in logits_in_bands(
                self._logits, group, self.windows, self.network.device
            ):
                require_finite_logits(logits, self.network)
                yield Band(first, row, self._probabilities(logits).cpu().numpy())

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.plan.activation == "softmax" else logits.sigmoid()

    def on_image(self, raw: RawImage) -> Iterator[Band]:
        """The probabilities of an image, on the grid of its files, in slices along `plan.axis`.

        Raises UserError, naming the file, for one that does not fit the plan or that resampling
        would make too large for memory.
        """
        plan = self.plan
        if not self.spaced:
            raw = dataclasses.replace(raw, spacing=(1.0, *plan.spacing))
        placement = plan.placement(raw)
        size, own = placement.size, placement.kept
        frame = Frame(placement, plan.outside)
        resampler: RowResampler | None = None
        for band in self.on_slices(plan.preprocess(raw)):
            if size == own:
                yield frame.around(band)
                continue
            if band.row == 0:
                resampler = RowResampler(size, own)
            assert resampler is not None
            row = resampler.done
            values = resampler.push(band.values)
            if values.shape[-2]:
                yield frame.around(Band(band.first, row, values))
        yield from frame.rest()
