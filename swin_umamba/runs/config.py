"""All settings of a training run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from swin_umamba.common.encoders import DEFAULT_ENCODER, ENCODERS, encoder_names
from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.common.records import Count, Listed, Positive, Share, record
from swin_umamba.data import Augmentation
from swin_umamba.models import baseline_names, model_names
from swin_umamba.models.registry import is_baseline, model_class
from swin_umamba.runs.old_configs import from_schema_1
from swin_umamba.runs.run_config import CONFIG, RunConfig

Amp = Literal["auto", "bf16", "fp16", "off"]
AMP_CHOICES: tuple[str, ...] = get_args(Amp)


def _known_model(name: str) -> str:
    if name not in _models():
        raise ValueError(f"got {name!r}, expected one of {', '.join(_models())}")
    return name


def _known_encoder(name: str) -> str:
    if name not in ENCODERS:
        raise ValueError(f"got {name!r}, expected one of {', '.join(ENCODERS)}")
    return name


def _models() -> list[str]:
    return [*model_names(), *baseline_names()]


Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
ModelName = Annotated[
    str,
    AfterValidator(_known_model),
    Field(json_schema_extra=lambda schema: schema.update(enum=_models())),
]
EncoderName = Annotated[
    str,
    AfterValidator(_known_encoder),
    Field(json_schema_extra=lambda schema: schema.update(enum=encoder_names())),
]
# A number is accepted: YAML yields one without quotes.
Fold = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


def _arguments(model: type) -> set[str]:
    """Argument names of a model class, and of its bases if it passes further ones on."""
    found: set[str] = set()
    for cls in model.__mro__:
        parameters = inspect.signature(vars(cls).get("__init__", object)).parameters.values()
        found |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if "__init__" in vars(cls) and all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found - {"self", *_OWN_FIELDS}


def check_model_options(model: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that a model class does not accept."""
    known = _arguments(model_class(model))
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(
            f"model_options: got {', '.join(unknown)}, expected some of"
            f" {', '.join(sorted(known))} for {model}"
        )


def check_encoder(model: str, encoder: str | None, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an encoder that a model does not accept; options: further ones."""
    if encoder is None:
        return
    if "encoder" in options:
        raise ValueError(
            f"model_options.encoder: got {options['encoder']!r} beside encoder {encoder!r},"
            " expected one of the two"
        )
    if is_baseline(model):
        raise ValueError(
            f"encoder: got {encoder!r}, expected none with {model}, which is a whole network"
        )
    if model == "swin_umamba_v1" and encoder != DEFAULT_ENCODER:
        raise ValueError(
            f"encoder: got {encoder!r}, expected {DEFAULT_ENCODER} with {model}: the others go with"
            " swin_umamba and swin_umamba_d"
        )


def network_options(encoder: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """A config's encoder and model_options as further arguments of `create_model`."""
    return dict(options) if encoder is None else {"encoder": encoder, **options}


def with_open_fields(
    config: RunConfig, values: Mapping[str, Any], open_fields: Sequence[str]
) -> dict[str, Any]:
    """Values by field, with NAME.ENTRY merged into the config's current value of field NAME."""
    plain = {name: value for name, value in values.items() if "." not in name}
    for name in (name for name in values if "." in name):
        outer, inner = name.split(".", 1)
        if outer not in open_fields:
            raise ValueError(f"config: unknown field {name}")
        whole = plain.get(outer, getattr(config, outer))
        if not isinstance(whole, dict):
            raise ValueError(f"{outer}: got {whole!r}, expected names with their values")
        plain[outer] = {**whole, inner: values[name]}
    return plain


OPEN_FIELDS = ("model_options", "augmentation")
"""Fields for which NAME.ENTRY sets a single entry."""
_OWN_FIELDS = ("in_channels", "out_channels", "deep_supervision", "pretrained", "name")


@record
class TrainConfig(RunConfig):
    """Settings of a training run.

    The defaults are those of the original implementation (the Swin-UMamba release), with two
    exceptions: batch_size, which nnU-Net plans there (12 to 30 in the published trainings, see
    `runs.presets`), and deep_supervision, which is on for every model here but off there for
    Swin-UMamba† from scratch.

    Raises ValueError, naming the field, for values of the wrong type and invalid values.
    """

    WHAT: ClassVar[str] = "config"
    FILE: ClassVar[str] = CONFIG
    CHANGEABLE: ClassVar[frozenset[str]] = frozenset(
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
    SCHEMA: ClassVar[int] = 3  # schema 2 had no encoder: it was always the model's default
    MIGRATIONS: ClassVar = {1: from_schema_1}

    preset: str | None = None  # name of the preset that the settings came from: `preset_config`
    dataset: str | None = None  # folder, if training reads one
    fold: Fold = "0"  # of the splits; "all" trains and validates on every case
    model: ModelName = "swin_umamba_d"
    encoder: EncoderName | None = None  # None: vmamba_tiny, or none for a baseline
    # further model arguments, such as dims
    model_options: dict[str, Any] = field(default_factory=dict)
    in_channels: Count = 1
    num_classes: Annotated[int, Field(ge=2, le=2**15 - 1)] = 2  # background included
    deep_supervision: bool = True
    pretrained: str | None = None  # weights to start from
    continue_from: str | None = None  # run folder whose best weights to start from
    freeze_iterations: Number = 2_500  # the encoder's, except its patch embedding, if pretrained

    patch_size: Annotated[tuple[Count, Count], Listed] = (320, 320)  # height, width
    batch_size: Count = 2  # summed over all processes
    accumulate: Count = 1  # batches whose gradients are combined in one step
    foreground: Share = 1 / 3  # fraction of each batch centered on foreground
    augment: bool = True
    augmentation: dict[str, Any] = field(default_factory=dict)  # fields of data.Augmentation
    batch_dice: bool = True

    iterations: Count = 25_000  # the original implementation's epochs have 250
    minutes: Positive | None = None  # stop after this time, with the schedule run to its end
    decay_iterations: Count | None = None  # length of lr's cosine; None: the run's
    lr: Positive = 1e-4
    min_lr: NotNegative = 1e-6  # final value of the cosine
    warmup: Fraction = 0.0  # fraction of the run in which lr rises to its maximum
    encoder_lr: Positive | None = None  # of stem and encoder, instead of lr, with the same schedule
    # Factor of the rate from each block of the encoder to the one before it.
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight_decay: NotNegative = 0.05
    decay_all: bool = True  # weight decay also for norms, biases and the scans' own parameters
    eps: Positive = 1e-5
    betas: Annotated[tuple[Fraction, Fraction], Listed] = (0.9, 0.999)
    clip_norm: Positive = 12.0  # of the whole gradient
    # Decay of a moving average of the weights, which is then validated.
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None

    validate_every: Count = 250  # iterations
    checkpoint_every: Count = 250  # iterations
    patience: Count | None = None  # validations without a better DSC before training ends early
    max_skipped: Count = 20  # consecutive steps without a finite loss and gradient; see `train`
    # returns to the last checkpoint, each with half the rate, before the run fails
    max_returns: Number = 3
    overlap: Fraction = 0.5  # of neighboring windows in validation
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: str = "auto"  # "auto" is a CUDA device if there is one, else the CPU
    # On CUDA devices, validations included; "auto": bf16 if supported, else fp16.
    amp: Amp = "auto"
    # Worker processes for patches; None: up to 8 for a GPU, 0 for a CPU.
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    compile: bool = False  # torch.compile
    # All kernels of a step in one launch, up to 10x faster for small batches; "auto" measures both.
    cuda_graph: CudaGraph = "auto"
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory
    tensorboard: bool = True  # if it is installed

    def __post_init__(self) -> None:
        self._require("fold", self.fold == "all" or self.fold.isdecimal(), "0, 1, ... or all")
        self._require("min_lr", self.min_lr <= self.lr, "0 to lr")
        self._require(
            "cuda_graph",
            self.cuda_graph is not True or not (self.compile or self.checkpoint_activations),
            "auto or false with compile or checkpoint_activations",
        )
        self._require(
            "continue_from",
            self.continue_from is None or self.pretrained is None,
            "None beside pretrained",
        )
        ours = not is_baseline(self.model)
        self._require("encoder_lr", ours or self.encoder_lr is None, f"None for {self.model}")
        self._require("layer_decay", ours or self.layer_decay == 1, f"1 for {self.model}")
        check_encoder(self.model, self.encoder, self.model_options)
        check_model_options(self.model, self.model_options)
        self.augmentation_numbers()

    def augmentation_numbers(self) -> bool | Augmentation:
        """The `augment` argument of PatchSampler."""
        known = Augmentation.field_names()
        unknown = sorted(self.augmentation.keys() - set(known))
        if unknown:
            raise ValueError(
                f"augmentation: got {', '.join(unknown)}, expected some of"
                f" {', '.join(sorted(known))}"
            )
        try:
            return self.augment and Augmentation(**self.augmentation)
        except ValueError as error:
            raise ValueError(f"augmentation.{error}") from error

    def freezes(self, iteration: int) -> bool:
        """Whether the pretrained encoder is frozen in an iteration, counted from 0."""
        return self.pretrained is not None and iteration < self.freeze_iterations

    def changed(self, values: Mapping[str, Any]) -> TrainConfig:
        """A copy with some fields replaced by JSON or Python values.

        "model_options.x" and "augmentation.x" set single entries. Raises ValueError, naming the
        field, if it is unknown or the value is invalid.
        """
        return super().changed(with_open_fields(self, values, OPEN_FIELDS))
