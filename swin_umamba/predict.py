"""Segment an image of any size with a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from swin_umamba.data.case import normalize
from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel, create_model
from swin_umamba.weights import load_weights, read_config


def predict(
    model: SegmentationModel,
    image: npt.NDArray[np.float32],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
) -> npt.NDArray[np.float32]:
    """Class probabilities of a normalised image, window by window.

    image: (C, H, W) float32. patch_size: height and width of a window; smaller images are padded
    with 0. overlap: share of a window that the next one covers again; where windows overlap, their
    logits are averaged with Gaussian weights. batch_size: windows at a time. Runs on the model's
    device in float32, and leaves the model as it was. Returns (out_channels, H, W) float32.
    """
    if image.ndim != 3 or image.shape[0] != model.in_channels:
        raise ValueError(
            f"image: got shape {image.shape}, expected ({model.in_channels}, height, width)"
        )
    stack = predict_stack(
        model, image[None], patch_size=patch_size, overlap=overlap, batch_size=batch_size
    )
    return stack.squeeze(0)


def predict_stack(
    model: SegmentationModel,
    images: npt.NDArray[np.float32],
    *,
    patch_size: tuple[int, int],
    overlap: float = 0.5,
    batch_size: int = 4,
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
    with _finest_only(model), torch.no_grad():
        logits = sliding_window_inference(
            torch.from_numpy(images).to(device),
            roi_size=patch_size,
            sw_batch_size=batch_size,
            predictor=model,
            overlap=overlap,
            mode="gaussian",
        )
    assert isinstance(logits, Tensor)  # one output, so no tuple or dict of them
    probabilities: npt.NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
    return probabilities


class Predictor:
    """A trained model with the size of its windows: `labels = predictor(image)`.

    image: (C, H, W) of any real dtype, normalised here as in training. Returns (H, W) int64 class
    indices.
    """

    def __init__(
        self, model: SegmentationModel, *, patch_size: tuple[int, int], overlap: float = 0.5
    ) -> None:
        self.model = model
        self.patch_size = patch_size
        self.overlap = overlap

    @classmethod
    def from_run(
        cls, folder: str | os.PathLike[str], *, checkpoint: str = "best", device: str = "auto"
    ) -> Predictor:
        """The model that a training run left in its folder.

        checkpoint: "best", by validation (the last where none was validated), or "last". Raises
        UserError if the folder is no run's or does not hold its weights whole.
        """
        from swin_umamba.train.config import TrainConfig
        from swin_umamba.train.run_folder import BEST, CONFIG, WEIGHTS

        if checkpoint not in ("best", "last"):
            raise ValueError(f"checkpoint: got {checkpoint!r}, expected 'best' or 'last'")
        weights, config_file = Path(folder) / WEIGHTS, Path(folder) / CONFIG
        if checkpoint == "best" and (Path(folder) / BEST).is_file():
            weights = Path(folder) / BEST
        try:
            config = TrainConfig.from_json(config_file.read_text(encoding="utf-8"))
            model = create_model(**read_config(weights))
            load_weights(model, weights)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no finished training run: {error}") from error
        model.to(pick_device(device))
        return cls(model, patch_size=config.patch_size, overlap=config.overlap)

    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        probabilities = predict(
            self.model, normalize(image), patch_size=self.patch_size, overlap=self.overlap
        )
        labels: npt.NDArray[np.int64] = probabilities.argmax(0)
        return labels


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a CUDA device if there is one, else the CPU.

    Raises UserError for a name torch does not know or a device this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch asserts that it was compiled for a device; its first line says all.
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used: {reason}") from error
    return device


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
