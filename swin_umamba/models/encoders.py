"""The encoder of all three models: VMamba without its classification head."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from swin_umamba.models.drop_path import linear_rates
from swin_umamba.models.layers import PatchEmbed, PatchMerging, VSSStage


class VSSMEncoder(nn.Module):
    """Feature maps of an image at ever coarser scales.

    x: (B, in_channels, H, W), H and W multiples of `stride`. The result holds one map
    (B, dims[i], H_i, W_i) per stage, finest first, stored channels last; H_0 = H / patch_size,
    and every stage halves it.

    dims, depths: width and number of VSS blocks of each stage. d_state: states per channel.
    drop_path_rate: drop rate of the last block; it grows linearly from 0 at the first.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        patch_size: int,
        dims: tuple[int, ...],
        depths: tuple[int, ...],
        d_state: int,
        drop_path_rate: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.stride = patch_size * 2 ** (len(dims) - 1)
        self.patch_embed = PatchEmbed(in_channels, dims[0], patch_size)
        self.layers = nn.ModuleList(
            VSSStage(dim, rates, d_state, backend)
            for dim, rates in zip(dims, linear_rates(0.0, drop_path_rate, depths), strict=True)
        )
        self.downsamples = nn.ModuleList(
            PatchMerging(dim, out_dim) for dim, out_dim in pairwise(dims)
        )
        # The release cuts this normal off at 100 standard deviations, which changes nothing.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """Run the first `stages` stages, all by default."""
        x = self.patch_embed(x)
        features = []
        for i, layer in enumerate(self.layers[:stages]):
            if i > 0:
                x = self.downsamples[i - 1](x)
            x = layer(x)
            features.append(x.permute(0, 3, 1, 2))
        return features
