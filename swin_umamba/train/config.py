"""Every number of a training run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

AMP_CHOICES = ("auto", "bf16", "fp16", "off")


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults follow the Swin-UMamba release.

    Raises ValueError, naming the field, for values that cannot work.
    """

    dataset: str | None = None  # folder, where training reads one
    fold: str = "0"  # of the splits; "all" trains and validates on every case
    model: str = "swin_umamba_d"
    model_options: dict[str, Any] = field(default_factory=dict)  # further arguments, as dims
    in_channels: int = 1
    num_classes: int = 2  # the background included
    deep_supervision: bool = True
    pretrained: str | None = None  # weights to start from
    freeze_iterations: int = 2_500  # the encoder's, but for its patch embedding, if pretrained

    patch_size: tuple[int, int] = (320, 320)  # height, width
    batch_size: int = 2
    foreground: float = 1 / 3  # share of each batch centred on foreground
    augment: bool = True
    batch_dice: bool = True

    iterations: int = 25_000  # the release: 250 an epoch
    minutes: float | None = None  # stop, with the schedule run to its end, after this long
    lr: float = 1e-4
    min_lr: float = 1e-6  # where the cosine ends
    warmup: float = 0.0  # share of the run in which lr rises to its height
    weight_decay: float = 0.05
    eps: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 12.0  # of the whole gradient

    validate_every: int = 250  # iterations
    checkpoint_every: int = 250  # iterations
    patience: int | None = None  # validations without a better DSC before training ends early
    max_skipped: int = 20  # steps in a row without a finite loss and gradient; then see `loop`
    workers: int = 0  # processes that cut patches
    overlap: float = 0.5  # of neighbouring windows in validation
    seed: int = 0
    device: str = "auto"  # "auto" takes a CUDA device if there is one, else the CPU
    amp: str = "auto"  # on CUDA devices; "auto" takes bf16 where it is supported, else fp16

    def __post_init__(self) -> None:
        for name in (
            "in_channels",
            "batch_size",
            "iterations",
            "validate_every",
            "checkpoint_every",
            "max_skipped",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("num_classes", self.num_classes >= 2, "at least 2")
        self._require(
            "patch_size", len(self.patch_size) == 2 and min(self.patch_size) >= 1, "two sizes"
        )
        self._require("foreground", 0 <= self.foreground <= 1, "0 to 1")
        self._require("minutes", self.minutes is None or self.minutes > 0, "None or above 0")
        self._require("lr", self.lr > 0, "above 0")
        self._require("min_lr", 0 <= self.min_lr <= self.lr, "0 to lr")
        self._require("warmup", 0 <= self.warmup < 1, "at least 0 and below 1")
        self._require("weight_decay", self.weight_decay >= 0, "0 or above")
        self._require("eps", self.eps > 0, "above 0")
        self._require(
            "betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two in [0, 1)"
        )
        self._require("clip_norm", self.clip_norm > 0, "above 0")
        self._require("freeze_iterations", self.freeze_iterations >= 0, "0 or above")
        self._require("workers", self.workers >= 0, "0 or above")
        self._require("patience", self.patience is None or self.patience >= 1, "None or above 0")
        self._require("overlap", 0 <= self.overlap < 1, "at least 0 and below 1")
        self._require("amp", self.amp in AMP_CHOICES, f"one of {', '.join(AMP_CHOICES)}")

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"{name}: got {getattr(self, name)!r}, expected {expected}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what `to_json` wrote; fields it lacks keep their defaults.

        Raises ValueError for anything but a JSON object of known fields with values that work.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"config: got {type(values).__name__}, expected a JSON object")
        unknown = sorted(values.keys() - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"config: unknown fields {', '.join(unknown)}")
        try:
            for name in ("patch_size", "betas"):
                if name in values:
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"config: a value is of the wrong type: {error}") from error
