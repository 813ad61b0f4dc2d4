"""What a module with kernels provides, by op. Shapes and dtypes are those of swin_umamba_ops.ops.

Inputs are contiguous, aligned to 16 bytes, on a device and of a dtype that why_unsupported()
passed, and never empty. No output shares memory with an input or another output. Under autocast
these functions switch it off around torch operations that it would cast. A backward pass gets
`wanted`, a flag for each gradient: what it returns in place of the others, and of those of absent
inputs, is never looked at, and best None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from swin_umamba_ops.inputs import (
    ALL_SCAN,
    ALL_SS2D,
    ScanInputs,
    ScanWanted,
    SS2DInputs,
    SS2DWanted,
)

ALL_WANTED = (True,) * 7
Gradients = tuple[Tensor | None, ...]


class Kernels(Protocol):
    """What every module with kernels has."""

    def why_unusable(self) -> str | None:
        """None if it works on this machine, else the reason. Cheap, never raises."""

    def why_unsupported(self, device: torch.device, dtype: torch.dtype, size: int) -> str | None:
        """None if it serves such inputs, else the reason; size as in backends.why_not."""


class Scans(Kernels, Protocol):
    """ "ss2d" and "selective_scan"."""

    chunk_length: int  # steps between two saved states

    def ss2d_sizes(
        self, device: torch.device, dtype: torch.dtype, D: int, N: int, R: int
    ) -> tuple[int, int]:
        """The states and ranks, at least N and R, with which it serves D channels the fastest."""

    def ss2d_forward(
        self, inputs: SS2DInputs, out_dtype: torch.dtype, save: bool
    ) -> tuple[Tensor, Tensor]:
        """y and states."""

    def ss2d_backward(
        self, dy: Tensor, inputs: SS2DInputs, states: Tensor, wanted: SS2DWanted = ALL_SS2D
    ) -> Gradients:
        """The gradients of the six inputs, each like its input."""

    def selective_scan_forward(
        self, inputs: ScanInputs, out_dtype: torch.dtype, save: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """out, the last state, and states."""

    def selective_scan_backward(
        self,
        dout: Tensor,
        dlast: Tensor | None,
        inputs: ScanInputs,
        states: Tensor,
        wanted: ScanWanted = ALL_SCAN,
    ) -> Gradients:
        """The gradients of the inputs' seven tensors, each like its input."""


class LayerNorm(Kernels, Protocol):
    """ "layer_norm"."""

    def forward(
        self,
        x: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        out_dtype: torch.dtype,
    ) -> Tensor:
        """y, like x, in out_dtype."""

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        wanted: Sequence[bool] = ALL_WANTED,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradients of x, gate, weight and bias; (0,) for an absent gate."""


class DepthwiseConvSilu(Kernels, Protocol):
    """ "depthwise_conv_silu"."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """y, like x."""

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        wanted: Sequence[bool] = ALL_WANTED,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, weight and bias; (0,) for an absent bias."""


class InstanceNormAct(Kernels, Protocol):
    """ "instance_norm_act"."""

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        kind: int,
        eps: float,
        slope: float,
    ) -> tuple[Tensor, Tensor]:
        """y, like x, and the statistics."""

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        stats: Tensor,
        kind: int,
        slope: float,
        wanted: Sequence[bool] = ALL_WANTED,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradients of x, weight, bias and residual; (0,) for an absent input. dy alone may be
        a part of a larger map's channels."""


class Convolutions(Kernels, Protocol):
    """ "conv3x3" and "norm_act_conv3x3"."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """y (B, H, W, E)."""

    def backward(
        self, dy: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool] = ALL_WANTED
    ) -> tuple[Tensor, Tensor]:
        """The gradients of x and weight."""

    def norm_act_forward(
        self, x: Tensor, weight: Tensor, eps: float, slope: float
    ) -> tuple[Tensor, Tensor]:
        """y and the norm's statistics."""

    def norm_act_backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        stats: Tensor,
        slope: float,
        wanted: Sequence[bool] = ALL_WANTED,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of x and weight."""


class MlpGelu(Kernels, Protocol):
    """ "mlp_gelu"."""

    def forward(
        self, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        """y (..., F)."""

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        wanted: Sequence[bool] = ALL_WANTED,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of all five inputs. Parameters may be of any floating dtype and layout."""


class SegmentationSums(Kernels, Protocol):
    """ "segmentation_sums"."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums (B, 2 * C) of logits that are contiguous or channels last."""

    def backward(self, dsums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """The gradient of the logits, like them."""
