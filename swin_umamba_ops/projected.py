"""The projection of x and the scan as one node of autograd.

Small images are bound by what surrounds the kernels: each node of the graph, each cast and each sum
of two gradients costs as much as a kernel. Compiled programs see the pieces instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import library
from swin_umamba_ops.scan_order import DIRECTIONS


class _ProjectedSS2D(torch.autograd.Function):
    """Keeps x, its projection, the weights as they were used, and one state per chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x_proj_weight: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        backend: str,
        out_dtype: torch.dtype,
    ) -> Tensor:
        B, H, W, D = x.shape
        weight = x_proj_weight.reshape(-1, D).to(x.dtype)
        proj = F.linear(x, weight).view(B, H, W, DIRECTIONS, x_proj_weight.shape[1])
        inputs = (x, proj, dt_projs_weight.to(x.dtype).contiguous(), dt_projs_bias, A_logs, Ds)
        y: Tensor
        with torch._C._AutoDispatchBelowAutograd():
            y, states = library.ss2d_scan(*inputs, backend, out_dtype, True)
        ctx.save_for_backward(weight, *inputs, states)
        ctx.shape, ctx.dtype = x_proj_weight.shape, x_proj_weight.dtype
        ctx.dt_dtype = dt_projs_weight.dtype
        ctx.backend = backend
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, ddt_weight, *others = _gradients(dy, *ctx.saved_tensors, ctx.backend)
        dweight = dweight.view(ctx.shape).to(ctx.dtype)
        return (dx, dweight, ddt_weight.to(ctx.dt_dtype), *others, None, None)


def _all_gradients(dy: Tensor, weight: Tensor, *saved: Any) -> tuple[Tensor, ...]:
    x = saved[0]
    dx, dproj, *others = library.ss2d_scan_backward(dy.contiguous(), *saved)
    dx, x, dproj = dx.flatten(0, 2), x.flatten(0, 2), dproj.flatten(3).flatten(0, 2)
    # The product is added to dx where it lies, and rounded once.
    torch.addmm(dx, dproj, weight, out=dx)
    return (dx.view_as(saved[0]), dproj.t() @ x, *others)


_gradients = library.first_derivative_only(_all_gradients)


def projected_ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    backend: str,
    out_dtype: torch.dtype,
) -> Tensor:
    """library.ss2d_scan of (B, H, W, D) x and weights in their own dtypes, with gradients."""
    y: Tensor = _ProjectedSS2D.apply(  # type: ignore[no-untyped-call]
        x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, backend, out_dtype
    )
    return y
