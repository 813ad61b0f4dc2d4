"""The Mamba decoder of Swin-UMamba†."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from swin_umamba.drop_path import linear_rates
from swin_umamba.layers import PatchExpand, VSSStage


class MambaDecoder(nn.Module):
    """From the encoder's feature maps to logits.

    features: one map (B, dims[i], H_i, W_i) per encoder stage, finest first. Every decoder stage
    doubles the resolution, joins the encoder's map of that size and runs VSS blocks; a last
    expansion by patch_size reaches the image's resolution. The result holds logits, finest first:
    of the image's resolution and of every stage with `all_scales`, of the image's alone without.

    depths: number of blocks of each stage, coarsest first. drop_path_rate: drop rate of the first
    block; it falls linearly to 0 at the last.
    """

    def __init__(
        self,
        out_channels: int,
        *,
        patch_size: int,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        d_state: int,
        drop_path_rate: float,
        backend: str,
    ) -> None:
        super().__init__()
        below, skips = dims[:0:-1], dims[-2::-1]  # coarsest first
        rates = linear_rates(drop_path_rate, 0.0, depths)
        self.stages = nn.ModuleList(
            VSSStage(dim, stage_rates, d_state, backend)
            for dim, stage_rates in zip(skips, rates, strict=True)
        )
        self.expand_layers = nn.ModuleList(
            PatchExpand(dim, skip, 2) for dim, skip in zip(below, skips, strict=True)
        )
        self.expand_layers.append(PatchExpand(dims[0], dims[0], patch_size))
        self.seg_layers = nn.ModuleList(
            nn.Conv2d(dim, out_channels, kernel_size=1) for dim in (*skips, dims[0])
        )
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in skips)

    def forward(self, features: list[Tensor], all_scales: bool) -> list[Tensor]:
        maps = [f.permute(0, 2, 3, 1) for f in reversed(features)]
        x = maps[0]
        decoded = []
        for i, stage in enumerate(self.stages):
            x = torch.cat((self.expand_layers[i](x), maps[i + 1]), dim=-1)
            x = stage(self.concat_back_dim[i](x))
            decoded.append(x)
        decoded.append(self.expand_layers[-1](x))
        first = 0 if all_scales else len(self.stages)
        logits = [
            head(x.permute(0, 3, 1, 2))
            for head, x in zip(self.seg_layers[first:], decoded[first:], strict=True)
        ]
        return logits[::-1]
