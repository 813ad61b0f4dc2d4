"""VMamba encoders without classification head, of the first and second generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from swin_umamba.models.block_kinds import BlockKind
from swin_umamba.models.drop_path import linear_rates
from swin_umamba.models.layers import PatchEmbed, PatchMerging, VSSStage
from swin_umamba.models.vmamba_v2 import ConvDownsample, ConvPatchEmbed, DownsampledStage

if TYPE_CHECKING:
    from swin_umamba.weights.report import Report


class Encoder(nn.Module, ABC):
    """Feature maps of an image at increasingly coarse scales.

    x: (B, in_channels, H, W), floating point. Returns one map (B, channels[i], H_i, W_i) per stage,
    finest first, in channels_last.

    in_channels: of the image. dims, depths: width and number of blocks per stage. kind: of the
    blocks. drop_path_rate: drop rate of the last block; it grows linearly from 0 at the first.
    """

    channels: tuple[int, ...]
    """Channels of each map."""
    reductions: tuple[int, ...]
    """Input pixels per pixel of each map, along each axis."""
    layers: nn.ModuleList
    patch_embed: nn.Module

    def __init__(self, channels: Sequence[int], patch_size: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.reductions = tuple(patch_size * 2**i for i in range(len(self.channels)))
        # Report about the weights that `create_encoder` loaded, if any.
        self.pretrained_report: Report | None = None

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the coarsest map."""
        return self.reductions[-1]

    @property
    @abstractmethod
    def first_convolution(self) -> nn.Conv2d:
        """The layer applied to the image."""

    @abstractmethod
    def forward(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """Run the first `stages` stages, all by default."""

    @abstractmethod
    def parts(self, stage: int) -> list[nn.Module]:
        """The modules of a stage; together with the patch embedding they cover every parameter."""

    def _init_linear(self) -> None:
        # VMamba truncates this normal at 100 standard deviations, which changes nothing.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class VSSMEncoder(Encoder):
    """VMamba's first generation: H and W are multiples of `stride`.

    patch_size: input pixels per pixel of the finest map; every stage halves it.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        patch_size: int,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        kind: BlockKind,
        drop_path_rate: float,
    ) -> None:
        super().__init__(dims, patch_size)
        self.patch_embed = PatchEmbed(in_channels, dims[0], patch_size)
        self.layers = nn.ModuleList(
            VSSStage(kind.row(dim, rates))
            for dim, rates in zip(dims, linear_rates(0.0, drop_path_rate, depths), strict=True)
        )
        self.downsamples = nn.ModuleList(
            PatchMerging(dim, out_dim) for dim, out_dim in pairwise(dims)
        )
        self._init_linear()

    @property
    def first_convolution(self) -> nn.Conv2d:
        convolution: nn.Conv2d = self.get_submodule("patch_embed.proj")  # type: ignore[assignment]
        return convolution

    def forward(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        if not torch.compiler.is_compiling() and any(n % self.stride for n in x.shape[-2:]):
            raise ValueError(
                f"x: got shape {tuple(x.shape)}, expected H and W that are multiples of"
                f" {self.stride}"
            )
        x = self.patch_embed(x)
        features = []
        for i, layer in enumerate(self.layers[:stages]):
            if i > 0:
                x = self.downsamples[i - 1](x)
            x = layer(x)
            features.append(x.permute(0, 3, 1, 2))
        return features

    def parts(self, stage: int) -> list[nn.Module]:
        return [*self.downsamples[max(stage - 1, 0) : stage], self.layers[stage]]


class ConvVSSMEncoder(Encoder):
    """VMamba's second generation: any H and W; map i has ceil(H / reductions[i]) rows."""

    def __init__(
        self,
        in_channels: int,
        *,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        kind: BlockKind,
        drop_path_rate: float,
    ) -> None:
        super().__init__(dims, 4)
        self.patch_embed = ConvPatchEmbed(in_channels, dims[0])
        self.layers = nn.ModuleList()
        for i, rates in enumerate(linear_rates(0.0, drop_path_rate, depths)):
            last = i == len(dims) - 1
            downsample = None if last else ConvDownsample(dims[i], dims[i + 1])
            self.layers.append(DownsampledStage(kind.row(dims[i], rates), downsample))
        self._init_linear()

    @property
    def first_convolution(self) -> nn.Conv2d:
        convolution: nn.Conv2d = self.get_submodule("patch_embed.0")  # type: ignore[assignment]
        return convolution

    def forward(
        self, x: Tensor, stages: int | None = None, *, halfway: bool = False
    ) -> list[Tensor]:
        """Run the first `stages` stages, all by default.

        halfway: prepend the patch embedding's intermediate map (B, channels[0] / 2, H / 2, W / 2).
        """
        half, x = self.patch_embed(x)
        features = [half] if halfway else []
        layers = self.layers[:stages]
        for i, layer in enumerate(layers):
            x = layer(x)
            features.append(x.permute(0, 3, 1, 2))
            if i < len(layers) - 1:
                x = layer.get_submodule("downsample")(x)
        return features

    def parts(self, stage: int) -> list[nn.Module]:
        return [self.layers[stage]]
