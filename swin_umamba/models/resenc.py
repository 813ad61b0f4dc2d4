"""nnU-Net's residual encoder network for comparison, with the interface of our models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swin_umamba.models.baselines import WIDTHS, Baseline, levels
from swin_umamba.models.registry import register_model

BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)
"""Residual blocks per encoder stage, truncated to the number of stages."""


@register_model("resenc_m", baseline=True)
class ResEncUNet(Baseline):
    """nnU-Net's ResEnc-M in 2-D from dynamic_network_architectures (arXiv:2404.09556), with logits
    at every scale but the coarsest.

    patch_size: (H, W) used for training, which determines the depth; see `baselines.pooling`.
    Widths double from 32 to 512; a decoder stage is one convolution; initialized as in that
    package. Raises ValueError if it is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        patch_size: Sequence[int] = (320, 320),
        widths: tuple[int, int] = WIDTHS,
    ) -> None:
        try:
            from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
        except ImportError as error:
            raise ValueError(
                "resenc_m: needs the package dynamic-network-architectures:"
                " pip install --no-deps dynamic-network-architectures (this network needs none of"
                " its dependencies, which would replace a PyTorch for CPUs)"
            ) from error

        strides, scales, filters = levels(patch_size, widths)
        super().__init__(in_channels, out_channels, deep_supervision, scales[-1], scales[:-1])
        net = ResidualEncoderUNet(
            in_channels,
            len(strides),
            filters,
            nn.Conv2d,
            [[3, 3]] * len(strides),
            [list(stride) for stride in strides],
            list((*BLOCKS, *BLOCKS[-1:] * len(strides))[: len(strides)]),
            out_channels,
            [1] * (len(strides) - 1),
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
        net.apply(net.initialize)
        for module in net.modules():
            if hasattr(module, "all_modules"):  # contains its layers a second time, in order
                for name in [n for n, _ in module.named_children() if n != "all_modules"]:
                    delattr(module, name)
        # Its decoder contains the encoder a second time.
        self.encoder, decoder = net.encoder, net.decoder
        self.transposed, self.decoded = decoder.transpconvs, decoder.stages
        self.heads = decoder.seg_layers

    def logits(self, x: Tensor) -> list[Tensor]:
        skips = list(self.encoder(x))
        x = skips.pop()
        maps = []
        for up, stage in zip(self.transposed, self.decoded, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), dim=1))
            maps.append(x)
        heads = list(self.heads) if self.deep_supervision else [self.heads[-1]]
        return [head(features) for head, features in zip(heads[::-1], maps[::-1], strict=False)]

    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "encoder": [self.encoder],
            "decoder": [self.transposed, self.decoded],
            "heads": [self.heads],
        }
