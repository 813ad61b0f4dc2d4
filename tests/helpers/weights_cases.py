"""Small models, and checkpoints in other projects' layouts made from them."""

from __future__ import annotations

from typing import Any

import torch
from model_cases import SECOND, options_of
from torch import Tensor

from swin_umamba import create_model
from swin_umamba.models import SegmentationModel, create_encoder

SMALL: dict[str, Any] = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "d_state": 4}


def small(name: str, seed: int = 0, **options: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    return create_model(**{**options_of(name, in_channels=3, out_channels=4, **SMALL), **options})


def vmamba(seed: int = 1) -> dict[str, Tensor]:
    """A small classifier's weights under VMamba's first names."""
    encoder = small("swin_umamba_d", seed).vssm_encoder.state_dict()
    tensors = {}
    for name, tensor in encoder.items():
        if name.startswith("downsamples."):
            _, stage, rest = name.split(".", 2)
            name = f"layers.{stage}.downsample.{rest}"
        tensors[name] = tensor
    width = SMALL["dims"][-1]
    head = {"norm.weight": (width,), "norm.bias": (width,), "head.weight": (10, width)}
    return {**tensors, **{name: torch.randn(shape) for name, shape in head.items()}}


def vmamba_second(seed: int = 1, encoder: str = SECOND) -> dict[str, Tensor]:
    """A small classifier's weights of VMamba's second generation, under its names."""
    torch.manual_seed(seed)
    sizes = {name: SMALL[name] for name in ("dims", "depths")}
    tensors = create_encoder(encoder, **sizes).state_dict()
    width = SMALL["dims"][-1]
    head = {"norm.weight": (width,), "norm.bias": (width,), "head.weight": (10, width)}
    return {**tensors, **{f"classifier.{name}": torch.randn(shape) for name, shape in head.items()}}


def later_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """VMamba's first names as its later code has them."""
    pairs: list[tuple[str, str]] = [
        ("patch_embed.proj.", "patch_embed.0."),
        ("patch_embed.norm.", "patch_embed.2."),
        (".ln_1.", ".norm."),
        (".self_attention.", ".op."),
    ]

    def renamed(name: str) -> str:
        if name.startswith(("norm.", "head.")):
            return f"classifier.{name}"
        for old, new in pairs:
            name = name.replace(old, new)
        return name

    return {renamed(name): tensor for name, tensor in tensors.items()}
