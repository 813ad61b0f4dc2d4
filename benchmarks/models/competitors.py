"""Whole models as competitors: ours, eager, as CUDA graphs and compiled, and the original.

A model with an encoder other than its default is named MODEL+ENCODER. nnU-Net's networks run in the
same three forms.

All variants of one model have the same weights. A training step is forward, loss and backward, with
deep supervision; inference computes only the finest logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import swin_umamba
from benchmarks.ops import peers
from swin_umamba.common.compiling import compiled
from swin_umamba.common.encoders import DEFAULT_ENCODER, ENCODERS
from swin_umamba.common.graphs import GraphedInference, GraphedStep
from swin_umamba.losses import DeepSupervisionLoss, scale_weights

NAMES = ("swin_umamba", "swin_umamba_d", "swin_umamba_v1")
BASELINES = ("dynunet", "resenc_m")
"""nnU-Net's 2-D network and its ResEnc-M, planned for patches of 320 x 320."""
IN_CHANNELS, OUT_CHANNELS = 1, 14
LOSS_SCALE = 2.0**10
"""Keeps float16 gradients from vanishing; the same for all competitors."""
_TINY = {"dims": (8, 12, 16), "depths": (1, 1, 1)}
_TINY_BASELINE = {"widths": (8, 16), "patch_size": (32, 32)}
_PACKAGES = {"dynunet": "monai", "resenc_m": "dynamic_network_architectures"}
_FORMS_OF_BASELINES = {"ours": "eager", "ours, graph": "graph", "ours, compiled": "compiled"}

Call = Callable[[], object]
Make = Callable[[nn.Module, Tensor, Tensor, "torch.dtype | None"], Call]
"""From a model, an image, a target and autocast's dtype to a call."""


@dataclass(frozen=True)
class ModelCompetitor:
    """How to build a model with given weights, and how to run training steps and inference.

    build: from (model's name, tiny, weights). training, inference: see Make; a call of `inference`
    returns the finest logits. missing: why it is unavailable, by model's name, or "" for all.
    """

    name: str
    ours: bool
    build: Callable[[str, bool, dict[str, Tensor]], nn.Module]
    training: Make
    inference: Make
    missing: dict[str, str]
    source: str | None = None

    def why_missing(self, model: str) -> str | None:
        return self.missing.get(model, self.missing.get(""))


def with_encoders(models: Sequence[str], encoders: Sequence[str]) -> list[str]:
    """Every model with every encoder that it supports. ValueError for a model without any."""
    found = []
    for model in models:
        taken = [DEFAULT_ENCODER] if model == "swin_umamba_v1" else list(encoders)
        if model in BASELINES:
            found.append(model)
        found += [
            model if encoder == DEFAULT_ENCODER else f"{model}+{encoder}"
            for encoder in taken
            if model in NAMES and encoder in encoders
        ]
    if not found:
        raise ValueError(f"none of {', '.join(models)} takes an encoder of {', '.join(encoders)}")
    return found


def forms_of(model: str, entered: Sequence[ModelCompetitor]) -> list[ModelCompetitor]:
    """The competitors for a model; networks by other authors run in our three forms under their own
    names."""
    if model not in BASELINES:
        return list(entered)
    package = _PACKAGES[model]
    absent = {} if find_spec(package) else {"": f"the package {package} is not installed"}
    return [
        replace(
            form,
            name=_FORMS_OF_BASELINES[form.name],
            ours=False,
            missing={**form.missing, **absent},
        )
        for form in entered
        if form.ours
    ]


def autocast(image: Tensor, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    """Autocast to dtype if given, otherwise no autocast."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(image.device.type, dtype)


def loss_of(outputs: list[Tensor] | Tensor, target: Tensor) -> Tensor:
    scales = 1 if isinstance(outputs, Tensor) else len(outputs)
    value: Tensor = DeepSupervisionLoss(scale_weights(scales))(outputs, target)
    return value


def supervise(model: nn.Module, on: bool) -> nn.Module:
    """Switch deep supervision, which the original † model stores in its decoder."""
    holder: Any = model if hasattr(model, "deep_supervision") else model.decoder
    holder.deep_supervision = on
    return model


def weights(model: str, tiny: bool) -> dict[str, Tensor]:
    """Reproducible float32 weights of one of our models, as initialized."""
    torch.manual_seed(0)
    return _ours(model, tiny).state_dict()


def tiny_options(model: str) -> dict[str, Any]:
    """Arguments of `create_model` for a model with a few thousand weights."""
    if model in BASELINES:
        return dict(_TINY_BASELINE)
    if "+" in model:  # encoders with fixed states and patches
        return dict(_TINY)
    own = {"patch_size": 2} if model == "swin_umamba_d" else {}
    return {**_TINY, "d_state": 4, **own}


def _ours(model: str, tiny: bool, **options: Any) -> nn.Module:
    if tiny:
        options |= tiny_options(model)
    name, _, encoder = model.partition("+")
    if encoder:
        options["encoder"] = encoder
    if model in BASELINES:
        options.pop("backend", None)  # networks without scans
    return swin_umamba.create_model(
        name, in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, **options
    )


def build_ours(model: str, tiny: bool, state: dict[str, Tensor], **options: Any) -> nn.Module:
    """Our model with the given weights, with convolution weights in channels_last."""
    built = _ours(model, tiny, **options)
    built.load_state_dict(state)
    laid_out: nn.Module = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


def _build_release(model: str, tiny: bool, state: dict[str, Tensor]) -> nn.Module:
    """The original model as its get_..._from_plans functions create it."""
    if model == "swin_umamba":
        built = peers.load_release("SwinUMamba").SwinUMamba(
            in_chans=IN_CHANNELS,
            out_chans=OUT_CHANNELS,
            feat_size=[48, 96, 192, 384, 768],
            deep_supervision=True,
            hidden_size=768,
        )
    else:
        built = peers.load_release("SwinUMambaD").SwinUMambaD(
            {
                "in_chans": IN_CHANNELS,
                "patch_size": 4,
                "depths": [2, 2, 9, 2],
                "dims": 96,
                "drop_path_rate": 0.2,
            },
            {
                "num_classes": OUT_CHANNELS,
                "deep_supervision": True,
                "features_per_stage": [96, 192, 384, 768],
                "drop_path_rate": 0.2,
                "d_state": 16,
            },
        )
    module: nn.Module = built
    module.load_state_dict(state)
    return module


def eager_training(
    model: nn.Module, image: Tensor, target: Tensor, dtype: torch.dtype | None
) -> Call:
    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        with autocast(image, dtype):
            loss = loss_of(model(image), target)
        (LOSS_SCALE * loss).backward()
        return loss.detach()

    return step


def eager_inference(
    model: nn.Module, image: Tensor, target: Tensor, dtype: torch.dtype | None
) -> Call:
    def infer() -> Tensor:
        with torch.no_grad(), autocast(image, dtype):
            logits: Tensor = model(image)
            return logits

    return infer


def _graphed_training(
    model: nn.Module, image: Tensor, target: Tensor, dtype: torch.dtype | None
) -> Call:
    step = GraphedStep(
        model, lambda outputs, t: LOSS_SCALE * loss_of(outputs, t), image, target, dtype=dtype
    )
    return lambda: step(image, target)


def _graphed_inference(
    model: nn.Module, image: Tensor, target: Tensor, dtype: torch.dtype | None
) -> Call:
    graph = GraphedInference(model, image, dtype)
    return lambda: graph(image)


def _compiled(make: Make) -> Make:
    def of_compiled(
        model: nn.Module, image: Tensor, target: Tensor, dtype: torch.dtype | None
    ) -> Call:
        # The optimized module shares its parameters with the model, whose gradients are read.
        return make(compiled(model, fullgraph=True, dynamic=False), image, target, dtype)

    return of_compiled


def competitors(device: torch.device) -> list[ModelCompetitor]:
    """Ours in three forms, then the original; those unavailable here with the reason."""
    no_graphs = {} if device.type == "cuda" else {"": "CUDA graphs need a CUDA device"}
    forms: tuple[tuple[str, Make, Make, dict[str, str]], ...] = (
        ("ours", eager_training, eager_inference, {}),
        ("ours, graph", _graphed_training, _graphed_inference, no_graphs),
        ("ours, compiled", _compiled(eager_training), _compiled(eager_inference), {}),
    )
    found = [
        ModelCompetitor(name, True, build_ours, training, inference, missing)
        for name, training, inference, missing in forms
    ]
    absent = {
        "swin_umamba_v1": "the release's code no longer has the first version",
        **{
            f"{model}+{encoder}": "the release has no such encoder"
            for model in NAMES
            for encoder in ENCODERS
        },
    }
    reason = peers.why_no_release(device)
    if reason is not None:
        absent[""] = reason
    source = None if reason is not None else peers.source("release")
    found.append(
        ModelCompetitor(
            "release", False, _build_release, eager_training, eager_inference, absent, source
        )
    )
    return found
