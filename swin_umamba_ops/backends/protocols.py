"""The interface of modules with kernels, by op. Shapes and dtypes are those of swin_umamba_ops.ops.

Inputs are contiguous, aligned to 16 bytes, on a device and of a dtype accepted by
why_unsupported(), and never empty. No output shares memory with an input or another output. Under
autocast these functions disable it around torch operations that it would cast. A backward pass gets
`wanted`, a flag per gradient: what it returns for unwanted gradients, and for absent inputs, is
ignored and should be None.

A module of a fused op NAME has, for its record of swin_umamba_ops.inputs,

    NAME_forward(inputs) -> y, or (y, stats)
    NAME_backward(dy, inputs, [stats,] wanted) -> Gradients

where dy and inputs with a layout of their own in ops/ may have other layouts.
"""

from __future__ import annotations

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
    """The functions of every module with kernels."""

    def why_unusable(self) -> str | None:
        """None if it works on this machine, else the reason. Cheap, never raises."""

    def why_unsupported(self, device: torch.device, dtype: torch.dtype, size: int) -> str | None:
        """None if it supports such inputs, else the reason; size as in backends.why_not."""


class Scans(Kernels, Protocol):
    """ "ss2d" and "selective_scan"."""

    chunk_length: int  # steps between two saved states

    def ss2d_sizes(
        self, device: torch.device, dtype: torch.dtype, D: int, N: int, R: int
    ) -> tuple[int, int]:
        """The numbers of states and ranks, at least N and R, that are fastest for D channels."""

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
