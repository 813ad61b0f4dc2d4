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


def _project(
    x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, *others: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The x_proj_weight that was used, (4 * (R + 2N), D), and the tensors of library.ss2d_scan.

    x: (B, D, H, W), contiguous in channels_last; others: dt_projs_bias, A_logs and Ds.
    """
    B, D, H, W = x.shape
    x = x.permute(0, 2, 3, 1)
    weight = x_proj_weight.reshape(-1, D).to(x.dtype)
    proj = F.linear(x, weight).view(B, H, W, DIRECTIONS, x_proj_weight.shape[1])
    return weight, (x, proj, dt_projs_weight.to(x.dtype).contiguous(), *others)


class _ProjectedSS2D(torch.autograd.Function):
    """Keeps x, its projection, the weights as they were used, and one state per chunk."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, backend, out_dtype = args
        weight, scanned = _project(*tensors)
        y, states = library.ss2d_scan(*scanned, backend, out_dtype, True)
        x, x_proj_weight, dt_projs_weight = tensors[:3]
        # x itself in place of its view: second derivatives must find where it came from.
        ctx.save_for_backward(x, weight, *scanned[1:], states)
        ctx.shape, ctx.dtype = x_proj_weight.shape, x_proj_weight.dtype
        ctx.dt_dtype = dt_projs_weight.dtype
        ctx.backend = backend
        # Detached: autograd lets nobody change in place what it takes for a view made in here.
        merged: Tensor = y.permute(0, 3, 1, 2).detach()
        return merged

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, ddt_weight, *others = _gradients(dy, *ctx.saved_tensors, ctx.backend)
        dweight = dweight.view(ctx.shape).to(ctx.dtype)
        return (dx, dweight, ddt_weight.to(ctx.dt_dtype), *others, None, None)


def _all_gradients(dy: Tensor, x: Tensor, weight: Tensor, *saved: Any) -> tuple[Tensor, ...]:
    x, dy = x.permute(0, 2, 3, 1), dy.permute(0, 2, 3, 1).contiguous()
    dx, dproj, *others = library.ss2d_scan_backward(dy, x, *saved)
    each_dx, each_dproj = dx.view(-1, x.shape[3]), dproj.view(-1, weight.shape[0])
    # The product is added to dx where it lies, and rounded once.
    torch.addmm(each_dx, each_dproj, weight, out=each_dx)
    dweight = each_dproj.t() @ x.view(each_dx.shape)
    return (dx.permute(0, 3, 1, 2), dweight, *others)


_gradients = library.first_derivative_only(_all_gradients)


def projected_ss2d(*args: Any, save: bool) -> Tensor:
    """y (B, D, H, W) of the six tensors that _project() takes, a backend's name and out_dtype.

    save: whether gradients are wanted.
    """
    y: Tensor
    if save and not torch.compiler.is_compiling():
        y = _ProjectedSS2D.apply(*args)  # type: ignore[no-untyped-call]
        return y
    *tensors, backend, out_dtype = args
    _, scanned = _project(*tensors)
    y, _ = library.ss2d_scan(*scanned, backend, out_dtype, save)
    return y.permute(0, 3, 1, 2)
