"""PyTorch layers that can be fused with their neighbors into one op of swin_umamba_ops.

Each is a subclass of the PyTorch layer: called with just an input, it computes what that layer
computes. A block calls the static method beside `forward` to fuse the layer with a neighbor; if
the layer has been replaced (by an adapter or a quantized layer), the same method calls the layer
and the neighbor one after the other. Either way the layer's own `forward` runs, which hooks,
pruning, parametrizations and adapters rely on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import swin_umamba_ops as ops

_FEW_IN = 8
_16_BIT = (torch.float16, torch.bfloat16)


class OnBackend:
    """A module whose forward runs fused ops on a named backend."""

    backend: str = "auto"


def use_backend(model: nn.Module, scan_backend: str) -> None:
    """Run a model's fused ops on the backend of its scans, if that backend has such ops."""
    backend = ops.fused_backend(scan_backend)
    for module in model.modules():
        if isinstance(module, OnBackend):
            module.backend = backend


class LayerNorm(OnBackend, nn.LayerNorm):
    """LayerNorm over the last axis in one pass, whose result has autocast's dtype."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps, gate, backend=self.backend)

    @staticmethod
    def gated(layer: nn.Module, x: Tensor, gate: Tensor) -> Tensor:
        """layer(x) * silu(gate) in gate's dtype; x, gate: (..., C)."""
        if isinstance(layer, LayerNorm):
            out: Tensor = layer(x, gate)
        else:
            out = (layer(x) * F.silu(gate)).to(gate.dtype)
        return out


class DepthwiseConv2d(OnBackend, nn.Conv2d):
    """A convolution of each channel on its own, padded to the input's size."""

    def __init__(self, channels: int, kernel_size: int, *, bias: bool = True) -> None:
        padding = kernel_size // 2
        super().__init__(
            channels, channels, kernel_size, padding=padding, groups=channels, bias=bias
        )

    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        if not silu:
            return super().forward(x)
        pixels = x.permute(0, 2, 3, 1)
        out = ops.depthwise_conv_silu(pixels, self.weight, self.bias, backend=self.backend)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def then_silu(layer: nn.Module, x: Tensor) -> Tensor:
        """silu(layer(x)); x: (B, C, H, W), fastest in channels_last, like the result."""
        if isinstance(layer, DepthwiseConv2d):
            out: Tensor = layer(x, silu=True)
        else:
            out = F.silu(layer(x))
        return out


class InstanceNorm(OnBackend, nn.InstanceNorm2d):
    """InstanceNorm2d that preserves channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.instance_norm_act(x, self.weight, self.bias, eps=self.eps, backend=self.backend)


class Conv3x3(OnBackend, nn.Conv2d):
    """A 3x3 convolution without bias, padded to the input's size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, norm_slope: float | None = None) -> Tensor:
        if norm_slope is None:
            return ops.conv3x3(x, self.weight, backend=self.backend)
        return ops.norm_act_conv3x3(x, self.weight, slope=norm_slope, backend=self.backend)

    @staticmethod
    def after_norm(layer: nn.Module, x: Tensor, slope: float) -> Tensor:
        """layer(leaky_relu(InstanceNorm(x), slope)); the norm has no parameters."""
        if isinstance(layer, Conv3x3):
            out: Tensor = layer(x, norm_slope=slope)
        else:
            out = layer(ops.instance_norm_act(x, slope=slope))
        return out


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution without bias.

    On a GPU and in 16 bits few input channels are padded with zeros: cuDNN's kernels for fewer than
    8 take two to six times as long as for these.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        dtype = _dtype_padded(x)
        if dtype is None:
            return super().forward(x)
        zeros = _FEW_IN - x.shape[1]
        pixels = F.pad(x.permute(0, 2, 3, 1).to(dtype), (0, zeros))
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, zeros))
        return F.conv2d(pixels.permute(0, 3, 1, 2), weight)


def _dtype_padded(x: Tensor) -> torch.dtype | None:
    """The dtype of a convolution of x if it gets zero channels, else None."""
    if not x.is_cuda or x.shape[1] >= _FEW_IN or torch.compiler.is_compiling():
        return None
    autocast = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if autocast else x.dtype
    return dtype if dtype in _16_BIT else None


class Mlp(OnBackend, nn.Module):
    """Two linear layers with a GELU between them: (..., dim) to (..., dim) through `hidden`.

    They run as one op as long as both are unmodified; with an adapter in place of one, or a hook on
    it, each runs separately.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        fc1, fc2 = self.fc1, self.fc2
        if _is_plain(fc1) and _is_plain(fc2):
            return ops.mlp_gelu(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, backend=self.backend)
        out: Tensor = fc2(F.gelu(fc1(x)))
        return out


def _is_plain(layer: nn.Module) -> bool:
    """Whether a linear layer is PyTorch's own without hooks, so that no forward is skipped."""
    hooked = (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )
    return type(layer) is nn.Linear and layer.bias is not None and not hooked
