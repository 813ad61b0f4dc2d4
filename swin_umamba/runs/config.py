"""Every number of a training run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from swin_umamba.data import Augmentation

AMP_CHOICES = ("auto", "bf16", "fp16", "off")
# What may differ when a run goes on: how long, how often, and where; not what is learned.
CHANGEABLE = frozenset(
    {
        "dataset",
        "iterations",
        "minutes",
        "validate_every",
        "checkpoint_every",
        "patience",
        "max_skipped",
        "max_returns",
        "workers",
        "device",
        "compile",
        "cuda_graph",
        "checkpoint_activations",
        "tensorboard",
    }
)


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults follow the Swin-UMamba release.

    Raises ValueError, naming the field, for values that cannot work.
    """

    preset: str | None = None  # name of that which the numbers came from: `preset_config`
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
    batch_size: int = 2  # of all processes together
    accumulate: int = 1  # batches whose gradients make one step
    foreground: float = 1 / 3  # share of each batch centred on foreground
    augment: bool = True
    augmentation: dict[str, Any] = field(default_factory=dict)  # fields of data.Augmentation
    batch_dice: bool = True

    iterations: int = 25_000  # the release: 250 an epoch
    minutes: float | None = None  # stop, with the schedule run to its end, after this long
    decay_iterations: int | None = None  # length of lr's cosine; None: the run's
    lr: float = 1e-4
    min_lr: float = 1e-6  # where the cosine ends
    warmup: float = 0.0  # share of the run in which lr rises to its height
    weight_decay: float = 0.05
    eps: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 12.0  # of the whole gradient
    ema: float | None = None  # decay of a moving average of the weights, which is then validated

    validate_every: int = 250  # iterations
    checkpoint_every: int = 250  # iterations
    patience: int | None = None  # validations without a better DSC before training ends early
    max_skipped: int = 20  # steps in a row without a finite loss and gradient; see `train`
    max_returns: int = 3  # to the last checkpoint, each with half the rate, before the run fails
    overlap: float = 0.5  # of neighbouring windows in validation
    seed: int = 0
    device: str = "auto"  # "auto" takes a CUDA device if there is one, else the CPU
    amp: str = "auto"  # on CUDA devices, validations included; "auto": bf16 if supported, else fp16
    workers: int | None = None  # processes that cut patches; None: up to 8 for a GPU, 0 for a CPU
    compile: bool = False  # torch.compile
    cuda_graph: bool = False  # a step's kernels in one launch: up to 10x faster for small batches
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory
    tensorboard: bool = True  # where it is installed

    def __post_init__(self) -> None:
        for name in (
            "in_channels",
            "batch_size",
            "accumulate",
            "iterations",
            "validate_every",
            "checkpoint_every",
            "max_skipped",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("freeze_iterations", "max_returns", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        self._require("num_classes", self.num_classes >= 2, "at least 2")
        self._require(
            "patch_size", len(self.patch_size) == 2 and min(self.patch_size) >= 1, "two sizes"
        )
        self._require("foreground", 0 <= self.foreground <= 1, "0 to 1")
        self._require("minutes", self.minutes is None or self.minutes > 0, "None or above 0")
        decay = self.decay_iterations
        self._require("decay_iterations", decay is None or decay >= 1, "None or at least 1")
        self._require("lr", self.lr > 0, "above 0")
        self._require("min_lr", 0 <= self.min_lr <= self.lr, "0 to lr")
        self._require("warmup", 0 <= self.warmup < 1, "at least 0 and below 1")
        self._require("weight_decay", self.weight_decay >= 0, "0 or above")
        self._require("eps", self.eps > 0, "above 0")
        self._require(
            "betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two in [0, 1)"
        )
        self._require("clip_norm", self.clip_norm > 0, "above 0")
        self._require("ema", self.ema is None or 0 < self.ema < 1, "None or between 0 and 1")
        self._require("workers", self.workers is None or self.workers >= 0, "None or 0 and above")
        self._require("patience", self.patience is None or self.patience >= 1, "None or above 0")
        self._require("overlap", 0 <= self.overlap < 1, "at least 0 and below 1")
        self._require("amp", self.amp in AMP_CHOICES, f"one of {', '.join(AMP_CHOICES)}")
        alone = self.accumulate == 1 and not (self.compile or self.checkpoint_activations)
        self._require(
            "cuda_graph",
            alone or not self.cuda_graph,
            "false with accumulate, compile or checkpoint_activations",
        )
        self.augmentation_numbers()

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"{name}: got {getattr(self, name)!r}, expected {expected}")

    def augmentation_numbers(self) -> bool | Augmentation:
        """What PatchSampler takes as `augment`."""
        known = {f.name for f in dataclasses.fields(Augmentation)}
        unknown = sorted(self.augmentation.keys() - known)
        if unknown:
            raise ValueError(
                f"augmentation: got {', '.join(unknown)}, expected some of"
                f" {', '.join(sorted(known))}"
            )
        numbers: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.augmentation.items()
        }
        return self.augment and Augmentation(**numbers)

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
        return cls().changed(values)

    def changed(self, values: dict[str, Any]) -> TrainConfig:
        """A copy with some fields set, from values as JSON has them.

        "model_options.x" and "augmentation.x" set single entries. Raises ValueError, naming the
        field, if it is unknown or the value cannot work.
        """
        values = dict(values)
        for name in [name for name in values if "." in name]:
            outer, inner = name.split(".", 1)
            if outer not in ("model_options", "augmentation"):
                raise ValueError(f"config: unknown field {name}")
            values[outer] = {
                **values.get(outer, getattr(self, outer)),
                inner: values.pop(name),
            }
        unknown = sorted(values.keys() - {f.name for f in dataclasses.fields(self)})
        if unknown:
            raise ValueError(f"config: unknown fields {', '.join(unknown)}")
        try:
            for name in ("patch_size", "betas"):
                if name in values:
                    values[name] = tuple(values[name])
            return dataclasses.replace(self, **values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"config: a value is of the wrong type: {error}") from error
