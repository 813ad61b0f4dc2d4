"""All settings of a pretraining."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.common.records import Count, Listed, Positive, Share, record
from swin_umamba.models.registry import is_baseline
from swin_umamba.runs.config import (
    Amp,
    EncoderName,
    Fold,
    Fraction,
    ModelName,
    NotNegative,
    Number,
    check_encoder,
    check_model_options,
    with_open_fields,
)
from swin_umamba.runs.run_config import RunConfig

CONFIG = "pretraining.json"
CLASSES, PIXELS = "classes", "pixels"
Task = Literal["classes", "pixels"]
Side = Annotated[int, Field(ge=8, le=4096)]


def from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of schema 1 to schema 2."""
    if "cuda_graph" in values and values["cuda_graph"] is None:
        return {**values, "cuda_graph": "auto"}
    return values


@record
class PretrainConfig(RunConfig):
    """Settings for pretraining the parts of a model before its decoder.

    Raises ValueError, naming the field, for values of the wrong type and invalid values.
    """

    WHAT: ClassVar[str] = "pretraining config"
    FILE: ClassVar[str] = CONFIG
    CHANGEABLE: ClassVar[frozenset[str]] = frozenset(
        {
            "images",
            "iterations",
            "minutes",
            "validate_every",
            "checkpoint_every",
            "max_skipped",
            "max_returns",
            "device",
            "resident",
            "cuda_graph",
            "tensorboard",
        }
    )
    SCHEMA: ClassVar[int] = 2  # schema 1 had None for cuda_graph's "auto"
    MIGRATIONS: ClassVar = {1: from_schema_1}
    accumulate: ClassVar[int] = 1
    patience: ClassVar[None] = None

    images: str | None = None  # folder, CSV file or archive of tiles
    task: Task = "classes"  # predict the class of an image, or its masked pixels
    model: ModelName = "swin_umamba_d"  # whose encoder, and stem if any, is trained
    encoder: EncoderName | None = None  # None: vmamba_tiny
    # further model arguments, such as dims
    model_options: dict[str, Any] = field(default_factory=dict)
    # image channels; None: as in the images. 1 for RGB images: converted to gray
    in_channels: Count | None = None
    # for a segmentation dataset: images of its training cases; "all": of every case
    fold: Fold = "0"
    held_out: Share = 0.02  # fraction of the images that is not trained on, but scored

    image_size: Annotated[tuple[Side, Side], Listed] = (64, 64)  # of the network's input
    tile_size: Side | None = None  # at which images are stored; None: 8/7 of the larger side
    normalization: Literal["dataset", "image"] = "dataset"  # statistics used for normalization
    crop: Annotated[tuple[Share, Share], Listed] = (0.35, 1.0)  # as a fraction of the tile's area
    # maximum of crops, and its inverse the minimum
    aspect: Annotated[float, Field(ge=1, le=4)] = 4 / 3
    flip: Share = 0.5  # probability of a horizontal flip
    flip_vertical: Share = 0.0  # probability of a vertical flip
    # strength of brightness, contrast, saturation changes
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.3
    mixup: NotNegative = 0.2  # both parameters of the Beta distribution of weights; 0: none
    smoothing: Fraction = 0.1  # of the class probabilities
    # side of masked squares; None: so that at least 6 fit along a side
    mask_patch: Count | None = None
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.6  # fraction of the squares

    batch_size: Count = 512  # summed over all processes
    iterations: Count = 20_000
    minutes: Positive | None = None  # stop after this time, with the schedule run to its end
    decay_iterations: Count | None = None  # length of lr's cosine; None: the run's
    lr: Positive = 1e-3
    min_lr: NotNegative = 1e-5  # final value of the cosine
    warmup: Fraction = 0.05  # fraction of the run in which lr rises to its maximum
    weight_decay: NotNegative = 0.05  # of weights; norms, biases and states have none
    eps: Positive = 1e-8
    betas: Annotated[tuple[Fraction, Fraction], Listed] = (0.9, 0.999)
    clip_norm: Positive = 5.0  # of the whole gradient
    # Decay of a moving average of the weights, which is then scored and kept.
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999

    validate_every: Count = 1_000  # iterations
    checkpoint_every: Count = 1_000  # iterations
    max_skipped: Count = 20  # consecutive steps without a finite loss and gradient; see `train`
    # returns to the last checkpoint, each with half the rate, before the run fails
    max_returns: Number = 3
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: str = "auto"  # "auto" is a CUDA device if there is one, else the CPU
    amp: Amp = "auto"  # on CUDA devices; "auto": bf16 if supported, else fp16
    # Keep all tiles in the GPU's memory; None: if they take at most a quarter of it.
    resident: bool | None = None
    cuda_graph: CudaGraph = "auto"  # all kernels of a step in one launch; "auto" measures both
    tensorboard: bool = False  # if it is installed

    def __post_init__(self) -> None:
        self._require("fold", self.fold == "all" or self.fold.isdecimal(), "0, 1, ... or all")
        self._require("min_lr", self.min_lr <= self.lr, "0 to lr")
        self._require("held_out", self.held_out < 1, "below 1")
        low, high = self.crop
        self._require("crop", 0 < low <= high, "two fractions above 0, the smaller one first")
        side = min(self.image_size)
        self._require(
            "mask_patch",
            self.mask_patch is None or 2 * self.mask_patch <= side,
            f"at most half of image_size, {side // 2}",
        )
        if self.task == CLASSES and self.mixup > 0:
            self._require("batch_size", self.batch_size % 2 == 0, "an even number with mixup")
        self._require("model", not is_baseline(self.model), "one of our models, with an encoder")
        check_encoder(self.model, self.encoder, self.model_options)
        check_model_options(self.model, self.model_options)

    def changed(self, values: Any) -> PretrainConfig:
        """A copy with some fields replaced; "model_options.x" sets a single entry.

        Raises ValueError, naming the field, if it is unknown or the value is invalid.
        """
        return super().changed(with_open_fields(self, values, ("model_options",)))

    @property
    def stored_side(self) -> int:
        """Side of the tiles at which images are stored."""
        return self.tile_size or -(-8 * max(self.image_size) // 7)

    @property
    def mask_side(self) -> int:
        """Side of masked squares, in pixels."""
        if self.mask_patch is not None:
            return self.mask_patch
        return next((s for s in (32, 16, 8) if min(self.image_size) >= 6 * s), 4)
