"""Swin-UMamba's convolutional blocks: MONAI's names and arithmetic, channels last in memory.

MONAI's instance norms do not preserve channels_last, and every norm, activation and sum is another
pass over memory; here each is fused with the operation that follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import swin_umamba_ops as ops
from swin_umamba.models.fused import Conv3x3, InstanceNorm, OnBackend, PointwiseConv2d

__all__ = ["Head", "InstanceNorm", "ResidualBlock", "SkipBlock", "UpBlock"]

_SLOPE = 0.01  # slope of the leaky ReLU
_MANY, _PARTS = 2**26, 4  # values from which a map is joined in parts, and the number of parts


class ConvLayer(nn.Module):
    """A convolution with MONAI's parameter name: `conv`."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, norm_slope: float | None = None) -> Tensor:
        """The convolution of x, or of leaky_relu(InstanceNorm(x), norm_slope)."""
        if norm_slope is None:
            out: Tensor = self.conv(x)
            return out
        return Conv3x3.after_norm(self.conv, x, norm_slope)


class Head(nn.Module):
    """Logits (B, out_channels, H, W) of a feature map; MONAI's UnetOutBlock."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvLayer(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class ResidualBlock(OnBackend, nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, in_channels, H, W) to (B, out_channels, H, W).

    The norms have no parameters. MONAI's UnetResBlock, arXiv:1904.08128.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(Conv3x3(in_channels, out_channels))
        self.conv2 = ConvLayer(Conv3x3(out_channels, out_channels))
        self.conv3: nn.Module | None = None
        if in_channels != out_channels:
            self.conv3 = ConvLayer(PointwiseConv2d(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x), norm_slope=_SLOPE)
        short = x if self.conv3 is None else self.conv3(x)
        return ops.instance_norm_act(
            out,
            residual=short.to(out.dtype),
            normalise_residual=self.conv3 is not None,
            slope=_SLOPE,
            backend=self.backend,
        )


class SkipBlock(nn.Module):
    """A residual block on a skip connection; MONAI's UnetrBasicBlock.

    recompute: in training keep only the input, and run the block again in the backward pass.
    """

    def __init__(self, in_channels: int, out_channels: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.layer = ResidualBlock(in_channels, out_channels)
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            # The block has no randomness, so no random state is preserved.
            out: Tensor = checkpoint(self.layer, x, use_reentrant=False, preserve_rng_state=False)
        else:
            out = self.layer(x)
        return out


class UpBlock(nn.Module):
    """Double the resolution and join a skip: x (B, in_channels, H, W), skip (B, out_channels, 2H,
    2W), result like skip. MONAI's UnetrUpBlock."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.transp_conv = ConvLayer(
            nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        )
        self.conv_block = ResidualBlock(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or skip.numel() <= _MANY:
            return self._join(x, skip)
        # Without a backward pass a model's memory peaks here: process some images at a time, which
        # is possible since instance norms are per image.
        images = -(-skip.shape[0] // _PARTS)
        parts = zip(x.split(images), skip.split(images), strict=True)
        return torch.cat([self._join(*part) for part in parts])

    def _join(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv_block(torch.cat((self.transp_conv(x), skip), dim=1))
        return out
