"""Networks by other authors for comparison, built by MONAI, with the interface of our models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from swin_umamba.common.checks import check_positive
from swin_umamba.models.base import SegmentationModel, known_size
from swin_umamba.models.registry import register_model

SMALLEST = 4  # minimum pixels along an axis of nnU-Net's coarsest feature map
WIDTHS = (32, 512)  # channels of nnU-Net's finest and, at most, its coarser feature maps


class Baseline(SegmentationModel):
    """A network without our encoder: nothing can be frozen, and weights are our own files.

    H and W are zero-padded to multiples of `strides`, separately for each axis.
    """

    strides: tuple[int, int]
    """Input pixels, along H and W, per pixel of the coarsest feature map."""
    axis_scales: tuple[tuple[int, int], ...]
    """Input pixels, along H and W, per pixel of each scale's logits."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        deep_supervision: bool,
        strides: tuple[int, int],
        axis_scales: Sequence[tuple[int, int]] = ((1, 1),),
    ) -> None:
        super().__init__(in_channels, out_channels, deep_supervision)
        self.strides, self.stride = strides, max(strides)
        self.axis_scales = tuple(axis_scales)
        self.scales = tuple(max(scale) for scale in axis_scales)

    @abstractmethod
    def logits(self, x: Tensor) -> list[Tensor]:
        """As in SegmentationModel; H and W are multiples of `strides`."""

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        self._check(x)
        height, width = known_size(x)
        bottom, right = -height % self.strides[0], -width % self.strides[1]
        logits = [
            out[..., : -(-height // down), : -(-width // across)]
            for out, (down, across) in zip(
                self.logits(F.pad(x, (0, right, 0, bottom))), self.axis_scales, strict=False
            )
        ]
        return logits if self.deep_supervision else logits[0]

    def _encoder_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return []


def pooling(patch_size: Sequence[int]) -> list[tuple[int, int]]:
    """The stride of every stage of nnU-Net's network, the first (1, 1), for patches (H, W).

    An axis is halved as long as at least 4 pixels are left.
    """
    if len(patch_size) != 2 or min(patch_size) < 1:
        raise ValueError(f"patch_size: got {tuple(patch_size)}, expected two sizes above 0")
    height, width = patch_size
    strides = [(1, 1)]
    while max(height, width) >= 2 * SMALLEST:
        stride = (2 if height >= 2 * SMALLEST else 1, 2 if width >= 2 * SMALLEST else 1)
        height, width = height // stride[0], width // stride[1]
        strides.append(stride)
    if len(strides) < 3:
        raise ValueError(
            f"patch_size: got {tuple(patch_size)}, expected {4 * SMALLEST} or more along an axis"
        )
    return strides


def levels(
    patch_size: Sequence[int], widths: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[int]]:
    """nnU-Net's levels for a patch: the stride, scale and channels of each.

    widths: channels of the first level, which double from level to level, and their limit.
    """
    strides = pooling(patch_size)
    scales = [(1, 1)]
    for down, across in strides[1:]:
        scales.append((scales[-1][0] * down, scales[-1][1] * across))
    return strides, scales, [min(widths[0] << i, widths[1]) for i in range(len(strides))]


@register_model("dynunet", baseline=True)
class DynUNet(Baseline):
    """nnU-Net's 2-D network by MONAI's DynUNet, with logits at every scale but the coarsest.

    patch_size: (H, W) used for training, which determines the depth; see `pooling`. Widths double
    from 32 to 512; each stage has two 3x3 convolutions with instance norm and leaky ReLU; He
    initialization (arXiv:1809.10486). Unlike nnU-Net's, the 3x3 convolutions have no bias, which
    the norm would cancel.
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
        from monai.networks.nets.dynunet import DynUNet

        strides, scales, filters = levels(patch_size, widths)
        super().__init__(in_channels, out_channels, deep_supervision, scales[-1], scales[:-1])
        net = DynUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=filters,
            norm_name=("INSTANCE", {"affine": True}),
            deep_supervision=True,
            deep_supr_num=len(strides) - 2,
            trans_bias=True,
        )
        # MONAI's own forward pass would upsample all logits to the finest size.
        self.input_block, self.downsamples = net.input_block, net.downsamples
        self.bottleneck, self.upsamples = net.bottleneck, net.upsamples
        self.heads = nn.ModuleList([net.output_block, *net.deep_supervision_heads])

    def logits(self, x: Tensor) -> list[Tensor]:
        skips = [self.input_block(x)]
        for block in self.downsamples:
            skips.append(block(skips[-1]))
        x = self.bottleneck(skips[-1])
        decoded = []
        for block in self.upsamples:
            x = block(x, skips.pop())
            decoded.append(x)
        heads = self.heads if self.deep_supervision else self.heads[:1]
        return [head(features) for head, features in zip(heads, reversed(decoded), strict=False)]

    def stages(self) -> dict[str, list[nn.Module]]:
        return {
            "encoder": [self.input_block, self.downsamples, self.bottleneck],
            "decoder": [self.upsamples],
            "heads": [self.heads],
        }


class _Single(Baseline):
    """A MONAI network with logits at a single scale."""

    net: nn.Module

    def logits(self, x: Tensor) -> list[Tensor]:
        return [self.net(x)]

    def stages(self) -> dict[str, list[nn.Module]]:
        return {name: [part] for name, part in self.net.named_children()}


@register_model("swin_unetr", baseline=True)
class SwinUNETR(_Single):
    """MONAI's SwinUNETR in 2-D (arXiv:2201.01266).

    feature_size: width of the first stage, a multiple of 12. depths: number of blocks per stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        from monai.networks.nets.swin_unetr import SwinUNETR

        super().__init__(in_channels, out_channels, deep_supervision, (32, 32))
        self.net = SwinUNETR(
            in_channels, out_channels, feature_size=feature_size, depths=depths, spatial_dims=2
        )


@register_model("unetr", baseline=True)
class UNETR(_Single):
    """MONAI's UNETR in 2-D (arXiv:2103.10504).

    Every image up to patch_size is padded to it; larger ones are refused.

    patch_size: (H, W), rounded up to multiples of 16. hidden_size, mlp_dim, num_heads: of the
    transformer. feature_size: width of the decoder's finest stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        patch_size: Sequence[int] = (320, 320),
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
    ) -> None:
        from monai.networks.nets.unetr import UNETR

        height, width = (size + -size % 16 for size in patch_size)
        check_positive(height=height, width=width)
        super().__init__(in_channels, out_channels, deep_supervision, (height, width))
        self.net = UNETR(
            in_channels,
            out_channels,
            (height, width),
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
            spatial_dims=2,
        )
        # They exist but are unused, and would block distributed training.
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_("cross_attn" not in name)

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if x.shape[2] > self.strides[0] or x.shape[3] > self.strides[1]:
            raise ValueError(
                f"x: got shape {tuple(x.shape)}, expected at most {self.strides} pixels, the"
                " patch_size it was built for"
            )


@register_model("segresnet", baseline=True)
class SegResNet(_Single):
    """MONAI's SegResNet in 2-D (arXiv:1810.11654).

    init_filters: width of the finest stage, a multiple of 8.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        init_filters: int = 32,
    ) -> None:
        from monai.networks.nets.segresnet import SegResNet

        super().__init__(in_channels, out_channels, deep_supervision, (8, 8))
        self.net = SegResNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            init_filters=init_filters,
        )
