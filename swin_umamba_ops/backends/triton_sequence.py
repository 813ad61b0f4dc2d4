"""The one-dimensional scan by the Triton kernels: a sequence is an image with one row and one
direction."""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.backends._device import current
from swin_umamba_ops.backends.protocols import Gradients
from swin_umamba_ops.backends.triton import (
    Layout,
    chunk_length,
    pass_over,
    scan,
    scan_backward,
    why_unsupported,
    why_unusable,
)
from swin_umamba_ops.inputs import ALL_SCAN, ScanInputs, ScanWanted
from swin_umamba_ops.numerics import softplus

__all__ = [
    "chunk_length",
    "selective_scan_backward",
    "selective_scan_forward",
    "why_unsupported",
    "why_unusable",
]


def _sequence_inputs(inputs: ScanInputs) -> tuple[Layout, Tensor, Tensor]:
    """The layout, dt (B, D, L) and Bs and Cs (B, G, 2N, L), in float32."""
    B, D, L = inputs.u.shape
    G, N = inputs.Bs.shape[1:3]
    dt = inputs.delta.float()
    if inputs.delta_bias is not None:
        dt = dt + inputs.delta_bias[:, None]
    if inputs.delta_softplus:
        dt = softplus(dt)
    maps = torch.cat([inputs.Bs, inputs.Cs], dim=2).float()
    each = D // G
    strides = (D * L, each * L, 1, L, D * L, each * L, G * 2 * N * L, 2 * N * L, 1, L)
    return Layout(B, G, each, 1, L, N, 0, False, strides), dt, maps


def selective_scan_forward(
    inputs: ScanInputs, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    u, Ds = inputs.u, inputs.Ds
    B, D, _ = u.shape
    with current(u.device):
        layout, dt, maps = _sequence_inputs(inputs)
        out = torch.empty_like(u, dtype=torch.float32)
        last = u.new_empty((B, D, layout.N), dtype=torch.float32)
        # The kernels keep a group's states together.
        shape = (B, layout.K, layout.chunks, layout.D, layout.N)
        states = u.new_empty(shape, dtype=torch.float32) if save else None
        scan(pass_over(layout, u, False), u, dt, maps, None, None, inputs.A, out, states, last)
        if Ds is not None:
            out.addcmul_(u.float(), Ds[:, None])
        kept = (
            u.new_empty((0,), dtype=torch.float32)
            if states is None
            else states.transpose(1, 2).reshape(B, layout.chunks, D, layout.N)
        )
    return out.to(out_dtype), last, kept


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    wanted: ScanWanted = ALL_SCAN,
) -> Gradients:
    """The gradients of the seven tensors, each like its input."""
    u, delta, A, Bs, Cs, Ds, _, delta_softplus = inputs
    with current(u.device), torch.autocast(u.device.type, enabled=False):
        layout, dt, maps = _sequence_inputs(inputs)
        du = torch.empty_like(u, dtype=torch.float32)
        grouped = states.view(layout.B, layout.chunks, layout.K, layout.D, layout.N)
        dmaps = torch.zeros_like(maps)
        parameters_wanted = (
            wanted.A
            or (wanted.Ds and Ds is not None)
            or (wanted.delta_bias and inputs.delta_bias is not None)
        )
        ddelta, dA, dbias, dDs = scan_backward(
            pass_over(layout, u, True), delta_softplus, dout, u, dt, maps, A,
            grouped.transpose(1, 2).contiguous(), dlast, du, dmaps, parameters_wanted,
        )  # fmt: skip
        if Ds is not None:
            du.addcmul_(dout.float(), Ds[:, None])
        dBs, dCs = dmaps.split(layout.N, dim=2)
    return (
        du.to(u.dtype), ddelta.to(delta.dtype), dA, dBs.to(Bs.dtype).contiguous(),
        dCs.to(Cs.dtype).contiguous(), dDs, dbias,
    )  # fmt: skip
