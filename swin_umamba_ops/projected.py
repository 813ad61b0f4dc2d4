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
        x, x_proj_weight, dt_projs_weight = tensors[:3]
        with torch._C._AutoDispatchBelowAutograd():
            weight, scanned = _project(*tensors)
            y, states = library.ss2d_scan(*scanned, backend, out_dtype, True)
            # Detached: what autograd takes for a view made in here, nobody may change in place.
            merged: Tensor = y.permute(0, 3, 1, 2).detach()
        # x itself in place of its view: second derivatives must find where it came from.
        ctx.save_for_backward(x, weight, *scanned[1:], states)
        ctx.shape, ctx.dtype = x_proj_weight.shape, x_proj_weight.dtype
        ctx.dt_dtype = dt_projs_weight.dtype
        ctx.backend = backend
        return merged

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _gradients(dy, ctx.dtype, *ctx.saved_tensors, ctx.backend)
        dx, dweight, ddt_weight, *others = gradients
        return (dx, dweight.view(ctx.shape), ddt_weight.to(ctx.dt_dtype), *others, None, None)


def _all_gradients(
    dy: Tensor, dtype: torch.dtype, x: Tensor, weight: Tensor, *saved: Any
) -> tuple[Tensor, ...]:
    """Gradients of x, of x_proj_weight as `weight`, in a dtype, and of the others."""
    x, dy = x.permute(0, 2, 3, 1), dy.permute(0, 2, 3, 1).contiguous()
    dx, dproj, *others = library.ss2d_scan_backward(dy, x, *saved)
    each_x, each_dx = x.view(-1, x.shape[3]), dx.view(-1, x.shape[3])
    each_dproj = dproj.view(-1, weight.shape[0])
    # The product is added to dx where it lies, and rounded once.
    torch.addmm(each_dx, each_dproj, weight, out=each_dx)
    return (dx.permute(0, 3, 1, 2), _product(each_dproj.t(), each_x, dtype), *others)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b in a dtype: float32 of half factors, on CUDA, without a cast of its own."""
    if a.is_cuda and a.itemsize == 2 and dtype == torch.float32 and torch.version.hip is None:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


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
