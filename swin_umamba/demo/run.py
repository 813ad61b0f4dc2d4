"""The demo: train a small Swin-UMamba† on three quadrants of an image, score it on the fourth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import swin_umamba_ops as ops
from swin_umamba.common.devices import pick_device
from swin_umamba.data import Case, normalize, read_image, read_mask
from swin_umamba.demo.sample_pair import sample_pair
from swin_umamba.drawing.plots import save_curves, save_picture
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Predictor
from swin_umamba.runs.folder import CURVES, PICTURE, require_free
from swin_umamba.train import Progress, TrainConfig, TrainResult, train

FOLDER = "swin-umamba-demo"
ITERATIONS = 300
MINUTES = 4.0
# The tensors are too small for more: a second thread gains a fifth, but costs tenfold on busy
# cores.
THREADS = 1
PATCH = 128
MIN_SIDE, MAX_SIDE = 64, 1024
CLASSES = 2
MODEL_OPTIONS: dict[str, Any] = {
    "dims": (32, 64, 128),
    "depths": (1, 1, 1),
    "decoder_depths": (1, 1),
    "d_state": 4,
    "drop_path_rate": 0.0,
}


@dataclass(frozen=True)
class Pair:
    """An image (C, H, W) and its mask (H, W) of class or instance numbers, with a name."""

    name: str
    image: npt.NDArray[Any]
    mask: npt.NDArray[np.int64]


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo."""

    train: TrainResult
    trained_on: str  # description of the device
    picture: Path


def load_pair(image: Path | None, mask: Path | None) -> Pair:
    """The user's image and mask, or the sample pair if both are None.

    Images with a side above 1024 pixels are cropped to the central 1024. Raises UserError if one of
    the two is missing, unreadable, too small, or does not match the other.
    """
    if (image is None) != (mask is None):
        given, lacking = ("--image", "--mask") if mask is None else ("--mask", "--image")
        raise UserError(f"{given} is given without {lacking}; they go together")
    if image is None or mask is None:
        image, mask = sample_pair()
    pixels, labels = read_image(image), read_mask(mask)
    if pixels.shape[1:] != labels.shape:
        raise UserError(
            f"{image} is {_size(pixels.shape[1:])} but {mask} is {_size(labels.shape)} pixels"
            " (height x width); image and mask must have one size"
        )
    if min(labels.shape) < MIN_SIDE:
        raise UserError(
            f"{image} is {_size(labels.shape)} pixels, expected at least {MIN_SIDE} on each side"
        )
    window = tuple(
        slice((side - MAX_SIDE) // 2, (side + MAX_SIDE) // 2) if side > MAX_SIDE else slice(None)
        for side in labels.shape
    )
    return Pair(image.name, pixels[(slice(None), *window)], labels[window])


def quadrants(pair: Pair) -> list[Case]:
    """Upper left, upper right, lower left, lower right; mask values above 0 become class 1.

    Each is normalized separately, so that no information leaks between them. Raises UserError if
    the first three contain no object.
    """
    height, width = pair.mask.shape
    middle_y, middle_x = height // 2, width // 2
    windows = {
        "upper left": (slice(0, middle_y), slice(0, middle_x)),
        "upper right": (slice(0, middle_y), slice(middle_x, width)),
        "lower left": (slice(middle_y, height), slice(0, middle_x)),
        "lower right": (slice(middle_y, height), slice(middle_x, width)),
    }
    foreground = (pair.mask > 0).astype(np.int64)
    cases = [
        Case(
            f"{pair.name}, {name}",
            normalize(pair.image[(slice(None), *window)]),
            foreground[window],
        )
        for name, window in windows.items()
    ]
    if not any(case.mask.any() for case in cases[:3]):
        raise UserError(f"the mask of {pair.name} is 0 in all three training quadrants")
    return cases


def demo_config(
    pair: Pair, *, iterations: int, minutes: float, seed: int, backend: str, device: str
) -> TrainConfig:
    """The demo's training run."""
    height, width = pair.mask.shape
    return TrainConfig(
        model="swin_umamba_d",
        model_options={**MODEL_OPTIONS, "backend": backend},
        in_channels=pair.image.shape[0],
        num_classes=CLASSES,
        patch_size=(min(PATCH, height // 2), min(PATCH, width // 2)),
        batch_size=2,
        iterations=iterations,
        minutes=minutes,
        # A small model trained briefly from scratch tolerates a far higher rate than 1e-4.
        lr=2e-3,
        warmup=0.05,
        validate_every=max(iterations // 24, 1),
        seed=seed,
        device=device,
    )


def run_demo(
    pair: Pair,
    folder: Path,
    *,
    iterations: int = ITERATIONS,
    minutes: float = MINUTES,
    seed: int = 0,
    backend: str = "auto",
    device: str = "auto",
    threads: int = THREADS,
    on_progress: Callable[[Progress], None] | None = None,
) -> DemoResult:
    """Train on three quadrants, predict the fourth, and draw the result into `folder`.

    folder: missing or empty. Ends after the given iterations or minutes, whichever comes first.
    Raises UserError before any work for what `require_possible` refuses, and for other invalid
    settings.
    """
    require_possible(folder, backend=backend, device=device)
    *train_cases, held_out = quadrants(pair)
    try:
        config = demo_config(
            pair, iterations=iterations, minutes=minutes, seed=seed, backend=backend, device=device
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    with _at_most_threads(threads):
        result = train(config, train_cases, [held_out], folder, on_progress=on_progress)
        predictor = Predictor(result.model, patch_size=config.patch_size, overlap=config.overlap)
        labels = predictor.labels(held_out.image)
        trained_on = _in_words(result.device)
    save_curves(folder / CURVES, result.records)
    score = "no objects to score" if result.dsc is None else f"DSC {result.dsc:.3f}"
    save_picture(
        folder / PICTURE,
        held_out.image,
        held_out.mask,
        labels,
        result.records,
        title=f"Swin-UMamba† after {result.seconds:.0f} s of training on {trained_on}",
        prediction_title=f"Prediction: {score}",
    )
    return DemoResult(result, trained_on, folder / PICTURE)


def require_possible(folder: Path, *, backend: str, device: str) -> None:
    """Raise UserError if the folder is not empty, or the backend does not support the device."""
    require_free(folder)
    place = pick_device(device)
    channels, states, rank = 2, MODEL_OPTIONS["d_state"], 1
    sizes = (
        (1, channels, 1, 1),
        (4, rank + 2 * states, channels),
        (4, channels, rank),
        (4, channels),
        (4 * channels, states),
        (4 * channels,),
    )
    try:
        ops.ss2d(*(torch.zeros(size, device=place) for size in sizes), backend=backend)
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error


def free_folder() -> Path:
    """The demo's folder in the current one: the first name that is missing or empty."""
    number = 1
    while True:
        folder = Path(FOLDER if number == 1 else f"{FOLDER}-{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder
        number += 1


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{threads} CPU thread{'s' if threads > 1 else ''}"
    return str(device)


@contextmanager
def _at_most_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
