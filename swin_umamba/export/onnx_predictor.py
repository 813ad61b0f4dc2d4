"""Segment files with an ONNX file alone: it knows preprocessing and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.data import read_raw, write_labels
from swin_umamba.data.io.raw import RawImage
from swin_umamba.errors import UserError
from swin_umamba.export.onnx_network import OnnxNetwork
from swin_umamba.inference.predictor import labels_in_bands, scores_in_bands, windowed


class OnnxPredictor:
    """What `export_onnx` wrote for a run, as `labels = predictor(raw_image)`.

    overlap: share of a window that the next one covers again; windows are as large as training's
    patches, and their logits are averaged with Gaussian weights. batch_size: windows at a time.
    Raises UserError if the file does not hold a run's plan.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, overlap: float = 0.5, batch_size: int = 4
    ) -> None:
        self.network = OnnxNetwork(path)
        plan = self.network.facts.plan
        if plan is None:
            raise UserError(f"{path} holds no plan: export it from the folder of a run with one")
        self.plan = plan
        self.overlap = overlap
        self.batch_size = batch_size

    def __call__(self, raw: RawImage) -> npt.NDArray[np.int64]:
        """Class indices (Z, H, W) on the grid of the image's files."""
        slices = self.plan.preprocess(raw)
        # One slice at a time: the logits of a volume may not fit in memory.
        labels = np.stack([self.labels(np.ascontiguousarray(image)) for image in slices])
        restored: npt.NDArray[np.int64] = self.plan.restore(labels, raw)
        return restored

    def labels(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """(H, W) class indices of an image (C, H, W) that is normalised already.

        Large images are worked on in bands, as by `swin_umamba.inference.predictor.predict_labels`.
        """
        return labels_in_bands(
            lambda part: self._logits(part).numpy(),
            image,
            classes=self.plan.num_classes,
            window=self.plan.patch_size[0],
            overlap=self.overlap,
        )

    def probabilities(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(out_channels, H, W) of an image (C, H, W) that is normalised already."""
        probabilities: npt.NDArray[np.float32] = self._logits(image).softmax(0).numpy()
        return probabilities

    def bands(
        self, image: npt.NDArray[np.float32]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """`probabilities` in bands: their first row, and (out_channels, rows, W)."""
        return scores_in_bands(
            self.probabilities,
            image,
            classes=self.plan.num_classes,
            window=self.plan.patch_size[0],
            overlap=self.overlap,
        )

    def _logits(self, image: npt.NDArray[np.float32]) -> Tensor:
        """(out_channels, H, W) of an image (C, H, W)."""
        return windowed(
            self.network,
            torch.from_numpy(image)[None],
            patch_size=self.plan.patch_size,
            overlap=self.overlap,
            batch_size=self.batch_size,
        )[0]

    def predict_file(self, image: str | Path, output: str | Path) -> None:
        """Segment one file and write its labels, numbered as the training masks were."""
        raw = read_raw(image)
        write_labels(output, self(raw), raw, self.plan.values)
