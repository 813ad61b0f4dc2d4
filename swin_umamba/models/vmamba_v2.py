"""Building blocks of VMamba's second generation, with the parameter names of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from swin_umamba.models.drop_path import DropPath
from swin_umamba.models.fused import LayerNorm, Mlp
from swin_umamba.models.layers import VSSStage
from swin_umamba.models.ss2d import SS2D

MLP_RATIO = 4


class ChannelsLast(nn.Module):
    """(B, C, H, W) to (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(B, H, W, C) to (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class ConvPatchEmbed(nn.Sequential):
    """Two convolutions of stride 2, each with a LayerNorm, and a GELU between them.

    x: (B, in_channels, H, W). Returns the intermediate map (B, dim / 2, ceil(H / 2), ceil(W / 2)),
    and the patches (B, ceil(H / 4), ceil(W / 4), dim).
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        half = dim // 2
        super().__init__(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
            ChannelsLast(),
            LayerNorm(half),
            ChannelsFirst(),
            nn.GELU(),
            nn.Conv2d(half, dim, 3, stride=2, padding=1),
            ChannelsLast(),
            LayerNorm(dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        conv1, last1, norm1, first, gelu, conv2, last2, norm2 = self
        half: Tensor = gelu(first(norm1(last1(conv1(x)))))
        return half, norm2(last2(conv2(half)))


class ConvDownsample(nn.Sequential):
    """Halve the resolution: (B, H, W, dim) to (B, ceil(H / 2), ceil(W / 2), out_dim)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__(
            ChannelsFirst(),
            nn.Conv2d(dim, out_dim, 3, stride=2, padding=1),
            ChannelsLast(),
            LayerNorm(out_dim),
        )


class MlpVSSBlock(nn.Module):
    """x + drop_path(SS2D(norm(x))), then x + drop_path(MLP(norm(x))), on (B, H, W, dim).

    SS2D has no gate, and its convolution no bias. expand: scanned channels per channel.
    """

    def __init__(self, dim: int, drop_rate: float, d_state: int, expand: int, backend: str) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.op = SS2D(
            dim, d_state=d_state, expand=expand, gated=False, conv_bias=False, backend=backend
        )
        self.drop_path = DropPath(drop_rate)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class DownsampledStage(VSSStage):
    """A sequence of blocks on (B, H, W, dim), and the layer that resizes for the next stage.

    The stage's result is that of its blocks; the encoder calls `downsample` on it. It is None in
    the last stage.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__(blocks)
        self.downsample = downsample
