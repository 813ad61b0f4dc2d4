"""Layers shared by encoder and decoder. Feature maps between them are (B, H, W, C)."""

from __future__ import annotations

from collections.abc import Iterable

from einops import rearrange
from torch import Tensor, nn

from swin_umamba.models.drop_path import DropPath
from swin_umamba.models.fused import LayerNorm
from swin_umamba.models.ss2d import SS2D


class PatchEmbed(nn.Module):
    """Turn an image (B, in_channels, H, W) into patches (B, H/p, W/p, dim), p = patch_size."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class PatchMerging(nn.Module):
    """Halve the resolution: (B, H, W, dim) to (B, H/2, W/2, out_dim), H and W even."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)
        self.norm = LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "b (h p1) (w p2) c -> b h w (p2 p1 c)", p1=2, p2=2)
        out: Tensor = self.reduction(self.norm(x))
        return out


class PatchExpand(nn.Module):
    """Increase the resolution: (B, H, W, dim) to (B, scale * H, scale * W, out_dim).

    spread: False keeps the new pixels grouped: (B, H, W, scale * scale, out_dim). Source:
    Swin-Unet, arXiv:2105.05537.
    """

    def __init__(self, dim: int, out_dim: int, scale: int, *, spread: bool = True) -> None:
        super().__init__()
        self.scale, self.spread = scale, spread
        self.expand = nn.Linear(dim, scale * scale * out_dim, bias=False)
        self.norm = LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        p = self.scale
        out: Tensor = self.norm(self.expand(x).unflatten(-1, (p * p, -1)))
        if not self.spread:
            return out
        return rearrange(out, "b h w (p1 p2) c -> b (h p1) (w p2) c", p1=p, p2=p)


class VSSBlock(nn.Module):
    """Visual state space block: x + drop_path(SS2D(norm(x))), on (B, H, W, dim)."""

    def __init__(self, dim: int, drop_rate: float, d_state: int, backend: str) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state=d_state, backend=backend)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.drop_path(self.self_attention(self.ln_1(x)))
        return out


class VSSStage(nn.Module):
    """A sequence of blocks on (B, H, W, dim)."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x
