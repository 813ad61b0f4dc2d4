"""The Mamba decoder of Swin-UMamba†."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from swin_umamba.models.block_kinds import BlockKind
from swin_umamba.models.drop_path import linear_rates
from swin_umamba.models.layers import PatchExpand, VSSStage


class MambaDecoder(nn.Module):
    """From the encoder's feature maps to logits.

    features: one map (B, dims[i], H_i, W_i) per encoder stage, finest first. Every decoder stage
    doubles the resolution, concatenates the encoder's map of that size and runs its blocks; a last
    expansion by patch_size restores the image's resolution. The result is a list of logits, finest
    first: at the image's resolution and at every stage with `all_scales`, otherwise at the image's
    only.

    depths: number of blocks per stage, coarsest first. drop_path_rate: drop rate of the first
    block; it falls linearly to 0 at the last.
    """

    def __init__(
        self,
        out_channels: int,
        *,
        patch_size: int,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        kind: BlockKind,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        below, skips = dims[:0:-1], dims[-2::-1]  # coarsest first
        rates = linear_rates(drop_path_rate, 0.0, depths)
        self.stages = nn.ModuleList(
            VSSStage(kind.row(dim, stage_rates))
            for dim, stage_rates in zip(skips, rates, strict=True)
        )
        self.expand_layers = nn.ModuleList(
            PatchExpand(dim, skip, 2) for dim, skip in zip(below, skips, strict=True)
        )
        self.expand_layers.append(PatchExpand(dims[0], dims[0], patch_size, spread=False))
        self.seg_layers = nn.ModuleList(
            nn.Conv2d(dim, out_channels, kernel_size=1) for dim in (*skips, dims[0])
        )
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in skips)

    def forward(self, features: list[Tensor], all_scales: bool) -> list[Tensor]:
        maps = [f.permute(0, 2, 3, 1) for f in reversed(features)]
        x = maps[0]
        decoded = []
        for i, stage in enumerate(self.stages):
            x = self.expand_layers[i](x)
            x = torch.cat((x, maps[i + 1].to(x.dtype)), dim=-1)
            x = stage(self.concat_back_dim[i](x))
            decoded.append(x.permute(0, 3, 1, 2))
        # A head acts on single pixels, so for the finest scale only its few logits are rearranged,
        # rather than all channels of the patches.
        patches = self.expand_layers[-1](x).flatten(2, 3).permute(0, 3, 1, 2)
        finest = self.seg_layers[-1](patches)
        p = self.patch_size
        logits = [rearrange(finest, "b c h (w p1 p2) -> b c (h p1) (w p2)", p1=p, p2=p)]
        if all_scales:
            heads = list(self.seg_layers[:-1])
            logits += [head(x) for head, x in zip(heads[::-1], decoded[::-1], strict=True)]
        return logits
