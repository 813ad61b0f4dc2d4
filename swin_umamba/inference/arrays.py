"""Probabilities and labels of normalized arrays, without a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.inference.arriving import on_host
from swin_umamba.inference.network import Checked, Mirrored, TorchNetwork
from swin_umamba.inference.windows import Windows, logits_in_bands
from swin_umamba.models import SegmentationModel

Floats = npt.NDArray[np.float32]


def predict(
    model: SegmentationModel, image: Floats, *, patch_size: tuple[int, int], **options: Any
) -> Floats:
    """Class probabilities (out_channels, H, W) float32 of a normalized image (C, H, W) float32.

    patch_size and options as in `predict_stack`.
    """
    _require_shape("image", image, (model.in_channels, "height", "width"))
    return predict_stack(model, image[None], patch_size=patch_size, **options).squeeze(0)


def predict_labels(
    model: SegmentationModel, image: Floats, *, patch_size: tuple[int, int], **options: Any
) -> npt.NDArray[np.int64]:
    """The most probable class of every pixel, (H, W); arguments as in `predict`.

    Memory holds the image, its labels and the logits of one row of windows.
    """
    _require_shape("image", image, (model.in_channels, "height", "width"))
    labels = np.empty(image.shape[1:], np.int64)
    for row, band in _bands(model, image[None], _likeliest, patch_size=patch_size, **options):
        labels[row : row + band.shape[1]] = band[0]
    return labels


def predict_stack(
    model: SegmentationModel, images: Floats, *, patch_size: tuple[int, int], **options: Any
) -> Floats:
    """`predict` for several images of one size, whose windows share batches.

    images: (N, C, H, W) float32. patch_size: height and width of a window; smaller images are
    zero-padded. options: overlap (0.5), the fraction of a window shared with the next, where logits
    are averaged with Gaussian weights; batch_size (4), windows per batch; mirror (False), whether
    to average the logits of each window and its three mirror images, as nnU-Net does; amp ("off"),
    "bf16" or "fp16" on a GPU; cuda_graph ("auto"), as in Predictor. Runs on the model's device and
    leaves the model unchanged. Returns (N, out_channels, H, W) float32. Raises UserError for
    non-finite logits.
    """
    _require_shape("images", images, ("N", model.in_channels, "height", "width"))
    found = _bands(model, images, _probabilities, patch_size=patch_size, **options)
    bands = [band for _, band in found]
    return np.concatenate(bands, axis=2)


def _require_shape(name: str, array: Floats, expected: tuple[int | str, ...]) -> None:
    """Raise ValueError unless an array has these sizes; a word stands for any above 0."""
    fits = [
        n == m if isinstance(m, int) else n > 0 for n, m in zip(array.shape, expected, strict=False)
    ]
    if array.ndim != len(expected) or not all(fits):
        sizes = ", ".join(map(str, expected))
        raise ValueError(f"{name}: got shape {array.shape}, expected ({sizes})")


def _probabilities(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def _likeliest(logits: Tensor) -> Tensor:
    return _probabilities(logits).argmax(1)


def _bands(
    model: SegmentationModel,
    images: Floats,
    finish: Callable[[Tensor], Tensor],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
    mirror: bool = False,
    amp: str = "off",
    cuda_graph: CudaGraph = "auto",
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    network = TorchNetwork(model, amp=amp, cuda_graph=cuda_graph)
    checked = Checked(Mirrored(network) if mirror else network)
    windows = Windows(patch_size, overlap, batch_size)
    bands = logits_in_bands(checked, images, windows, network.device)
    return on_host(bands, finish, network.name)
