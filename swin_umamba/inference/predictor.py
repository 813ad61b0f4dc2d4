"""Segment an image of any size with a trained model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from swin_umamba.common.devices import half_precision, pick_device
from swin_umamba.data.sampling.case import normalize
from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel, create_model
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import BEST, CONFIG, WEIGHTS
from swin_umamba.weights import load_weights, read_config

MOST_VALUES = 1 << 27
"""Logits that are held at once: 0.5 GB of float32, and as much for their probabilities."""


def predict(
    model: SegmentationModel,
    image: npt.NDArray[np.float32],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
    mirror: bool = False,
    amp: str = "off",
) -> npt.NDArray[np.float32]:
    """Class probabilities of a normalised image, window by window.

    image: (C, H, W) float32. patch_size: height and width of a window; smaller images are padded
    with 0. overlap: share of a window that the next one covers again; where windows overlap, their
    logits are averaged with Gaussian weights. batch_size: windows at a time. mirror: average the
    logits of each window and of its three mirror images, as nnU-Net does. amp: "off" for float32,
    "bf16" or "fp16" on a GPU. Runs on the model's device, and leaves the model as it was. Returns
    (out_channels, H, W) float32.
    """
    if image.ndim != 3 or image.shape[0] != model.in_channels:
        raise ValueError(
            f"image: got shape {image.shape}, expected ({model.in_channels}, height, width)"
        )
    stack = predict_stack(
        model,
        image[None],
        patch_size=patch_size,
        overlap=overlap,
        batch_size=batch_size,
        mirror=mirror,
        amp=amp,
    )
    return stack.squeeze(0)


def predict_labels(
    model: SegmentationModel,
    image: npt.NDArray[np.float32],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    most_values: int = MOST_VALUES,
    **options: Any,
) -> npt.NDArray[np.int64]:
    """The likeliest class of every pixel, (H, W); arguments as in `predict`.

    An image of more than `most_values` logits is worked on in bands of rows, each with all windows
    that reach into it: the result is that of the whole, and memory besides the image and its labels
    is bounded by `most_values`, or by what the windows side by side in one row of them need.
    """

    def scores(part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return predict(model, part, patch_size=patch_size, overlap=overlap, **options)

    return labels_in_bands(
        scores,
        image,
        classes=model.out_channels,
        window=patch_size[0],
        overlap=overlap,
        most_values=most_values,
    )


def labels_in_bands(
    scores: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    image: npt.NDArray[np.float32],
    *,
    classes: int,
    window: int,
    overlap: float,
    most_values: int = MOST_VALUES,
) -> npt.NDArray[np.int64]:
    """`predict_labels` by whatever scores a part (C, h, W) of an image as (classes, h, W).

    window, overlap: rows of one of its sliding windows, and the share that the next covers again.
    """
    labels = np.empty(image.shape[1:], np.int64)
    for start, found in scores_in_bands(
        scores, image, classes=classes, window=window, overlap=overlap, most_values=most_values
    ):
        labels[start : start + found.shape[1]] = found.argmax(0)
    return labels


def scores_in_bands(
    scores: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    image: npt.NDArray[np.float32],
    *,
    classes: int,
    window: int,
    overlap: float,
    most_values: int = MOST_VALUES,
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The first row and the scores (classes, rows, W) of each band; see `labels_in_bands`."""
    height, width = image.shape[1:]
    stride = max(int(window * (1 - overlap)), 1)
    rows = max(most_values // (classes * width), 1)
    # A band's windows reach one window beyond it on both sides.
    rows = max((rows - 2 * window) // stride, 1) * stride
    for start, end, top, bottom in _bands(height, rows, window, stride):
        found = scores(np.ascontiguousarray(image[:, top:bottom]))
        yield start, found[:, start - top : end - top]


def _bands(height: int, rows: int, patch: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """Bands [start, end) of `rows` rows, and the rows [top, bottom) of all windows that reach in.

    Windows start at multiples of `stride`, the last one where it ends with the image: cut at a
    window's start and end, a part has the windows that the whole image has there.
    """
    for start in range(0, height, rows):
        end = min(start + rows, height)
        top = max(-(-(start - patch + 1) // stride), 0) * stride
        bottom = (end - 1) // stride * stride + patch
        # Where the image's last window is not on the grid, it belongs to all bands it reaches.
        if bottom >= height or height - patch < end:
            bottom = height
        yield start, end, min(top, max(height - patch, 0)), bottom


def predict_stack(
    model: SegmentationModel,
    images: npt.NDArray[np.float32],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
    mirror: bool = False,
    amp: str = "off",
) -> npt.NDArray[np.float32]:
    """`predict` for several images of one size, whose windows share batches.

    images: (N, C, H, W) float32. Returns (N, out_channels, H, W) float32, all of which the device
    holds at once.
    """
    if images.ndim != 4 or images.shape[1] != model.in_channels:
        raise ValueError(
            f"images: got shape {images.shape}, expected (N, {model.in_channels}, height, width)"
        )
    device = next(model.parameters()).device
    dtype = half_precision(amp, device)

    def network(windows: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = mirrored(model, windows) if mirror else model(windows)
        return logits.float()

    with _finest_only(model), torch.no_grad():
        logits = windowed(
            network,
            torch.from_numpy(images).to(device),
            patch_size=patch_size,
            overlap=overlap,
            batch_size=batch_size,
        )
    probabilities: npt.NDArray[np.float32] = logits.softmax(1).cpu().numpy()
    return probabilities


def windowed(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    patch_size: tuple[int, int],
    overlap: float,
    batch_size: int,
) -> Tensor:
    """A network's logits (N, K, H, W) of images (N, C, H, W) by windows: see `predict`."""
    logits = sliding_window_inference(
        images,
        roi_size=patch_size,
        sw_batch_size=batch_size,
        predictor=network,
        overlap=overlap,
        mode="gaussian",
    )
    assert isinstance(logits, Tensor)  # one output, so no tuple or dict of them
    return logits


def mirrored(network: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """The mean of a network's logits over a window (B, C, H, W) and its three mirror images."""
    total = network(windows)
    for axes in ((2,), (3,), (2, 3)):
        total = total + network(windows.flip(axes)).flip(axes)
    return total / 4


class Predictor:
    """A trained model with the size of its windows: `labels = predictor(image)`; see `predict`.

    image: (C, H, W) of any real dtype, normalised here as in training. Returns (H, W) int64 class
    indices.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        patch_size: tuple[int, int],
        overlap: float = 0.5,
        mirror: bool = False,
        amp: str = "off",
    ) -> None:
        self.model = model
        self.patch_size = patch_size
        self.overlap = overlap
        self.mirror = mirror
        self.amp = amp

    @classmethod
    def from_run(
        cls,
        folder: str | os.PathLike[str],
        *,
        checkpoint: str = "best",
        device: str = "auto",
        mirror: bool = False,
        amp: str = "off",
    ) -> Predictor:
        """The model that a training run left in its folder.

        checkpoint: "best", by validation (the last where none was validated), or "last". Raises
        UserError if the folder is no run's or does not hold its weights whole.
        """
        weights, config_file = weights_of(Path(folder), checkpoint), Path(folder) / CONFIG
        try:
            config = TrainConfig.from_json(config_file.read_text(encoding="utf-8"))
            model = create_model(**read_config(weights))
            load_weights(model, weights)
        except (OSError, ValueError, TypeError) as error:  # TypeError: options of another model
            raise UserError(f"{folder} is no finished training run: {error}") from error
        model.to(pick_device(device))
        half_precision(amp, next(model.parameters()).device)
        return cls(
            model, patch_size=config.patch_size, overlap=config.overlap, mirror=mirror, amp=amp
        )

    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        return self.labels(normalize(image))

    def labels(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """(H, W) class indices of an image (C, H, W) that is normalised already."""
        return predict_labels(self.model, image, **self._options())

    def probabilities(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(out_channels, H, W) of an image (C, H, W) that is normalised already."""
        return predict(self.model, image, **self._options())

    def bands(
        self, image: npt.NDArray[np.float32]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """`probabilities` in bands: their first row, and (out_channels, rows, W).

        Memory is bounded as by `predict_labels`.
        """
        return scores_in_bands(
            self.probabilities,
            image,
            classes=self.model.out_channels,
            window=self.patch_size[0],
            overlap=self.overlap,
        )

    def _options(self) -> dict[str, Any]:
        return {
            "patch_size": self.patch_size,
            "overlap": self.overlap,
            "mirror": self.mirror,
            "amp": self.amp,
        }


def weights_of(folder: Path, checkpoint: str) -> Path:
    """A run's file of weights: "best" (the last where none was validated), or "last"."""
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint: got {checkpoint!r}, expected 'best' or 'last'")
    best = folder / BEST
    return best if checkpoint == "best" and best.is_file() else folder / WEIGHTS


@contextmanager
def _finest_only(model: SegmentationModel) -> Iterator[None]:
    """Eval mode without deep supervision, for a while."""
    training, deep_supervision = model.training, model.deep_supervision
    model.eval()
    model.deep_supervision = False
    try:
        yield
    finally:
        model.train(training)
        model.deep_supervision = deep_supervision
