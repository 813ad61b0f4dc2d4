"""The four-direction scan: its ops, and autograd around them and the projection before them.

    swin_umamba::ss2d_scan(x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds,
                           backend, out_dtype, save) -> (y, states)
    swin_umamba::ss2d_scan_backward(dy, x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds,
                           states, backend, wanted) -> six gradients

x (B, H, W, D) and proj (B, H, W, 4, R + 2N), of one dtype, the last axis of proj being [dt_r, Bs,
Cs]; dt_projs_weight (4, D, R) in that dtype; dt_projs_bias (4, D), A_logs (4 * D, N), Ds (4 * D,)
in the state's dtype, which is float64 for float64 x and float32 for all others. y (B, H, W, D) in
out_dtype. states (B, 4, C, D, N): the one that enters each chunk of steps along each direction's
own order, all that the backward pass needs to recompute the others; with save=False it is empty.
wanted: which gradients; the others are empty. Without, all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends, flops
from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.backends._memory import all_addressable
from swin_umamba_ops.numerics import state_dtype
from swin_umamba_ops.ops._check import has_shape, is_shape, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    bound_once,
    define,
    empty,
    first_derivative,
    register_formula,
    spread,
)
from swin_umamba_ops.scan_order import DIRECTIONS

_ALL = (True,) * 6


def _kernels(
    backend: str,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Any:
    """The backend's kernels for these inputs. ValueError or TypeError for those that do not fit
    together, RuntimeError for a backend that does not take them."""
    has_shape("x", x, "B", "H", "W", "D")
    has_shape("dt_projs_weight", dt_projs_weight, DIRECTIONS, x.shape[3], "R")
    has_shape("A_logs", A_logs, DIRECTIONS * x.shape[3], "N")
    R, N = dt_projs_weight.shape[2], A_logs.shape[1]
    is_shape("proj", proj, (*x.shape[:3], DIRECTIONS, R + 2 * N))
    is_shape("dt_projs_bias", dt_projs_bias, (DIRECTIONS, x.shape[3]))
    is_shape("Ds", Ds, (DIRECTIONS * x.shape[3],))
    same_dtype(x.dtype, ("proj", "dt_projs_weight"), (proj, dt_projs_weight))
    parameters = (dt_projs_bias, A_logs, Ds)
    same_dtype(state_dtype(x.dtype), ("dt_projs_bias", "A_logs", "Ds"), parameters)
    return backends.kernels("ss2d", backend, x.device, x.dtype, N)


def _outputs(
    x: Tensor, A_logs: Tensor, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = x.shape
    shape: tuple[int, ...] = (0,)
    if save:
        chunk = backends.load(backends.BACKENDS[backend].kernels["ss2d"]).chunk_length
        chunks = (height * width + chunk - 1) // chunk
        shape = (batch, DIRECTIONS, chunks, channels, A_logs.shape[1])
    return (
        torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format),
        x.new_empty(shape, dtype=state_dtype(x.dtype)),
    )


def _forward(
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    backend: str,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor]:
    inputs = (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    kernels = _kernels(backend, *inputs)
    if x.shape[0] == 0:
        return _outputs(x, A_logs, backend, out_dtype, save)
    result: tuple[Tensor, Tensor] = kernels.ss2d_forward(*all_addressable(*inputs), out_dtype, save)
    return result


def _forward_fake(
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    backend: str,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor]:
    return _outputs(x, A_logs, backend, out_dtype, save)


def _backward(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    inputs = (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    kernels = _kernels(backend, *inputs)
    is_shape("dy", dy, x.shape)
    chunks = -(-x.shape[1] * x.shape[2] // kernels.chunk_length)
    kept = (x.shape[0], DIRECTIONS, chunks, x.shape[3], A_logs.shape[1])
    is_shape("states", states, kept)
    same_dtype(state_dtype(x.dtype), ("states",), (states,))
    chosen = tuple(wanted or _ALL)
    if x.shape[0] == 0:
        gradients = tuple(torch.zeros_like(t) for t in inputs)
    else:
        given = all_addressable(dy, *inputs, states)
        gradients = kernels.ss2d_backward(*given, wanted=chosen)
    return tuple(
        g if is_wanted else empty(t)
        for g, t, is_wanted in zip(gradients, inputs, chosen, strict=True)
    )


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    inputs = (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format) if is_wanted else empty(t)
        for t, is_wanted in zip(inputs, wanted or _ALL, strict=True)
    )


ss2d_scan = define(
    "ss2d_scan(Tensor x, Tensor proj, Tensor dt_projs_weight, Tensor dt_projs_bias, "
    "Tensor A_logs, Tensor Ds, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor y, Tensor states)",
    _forward,
    _forward_fake,
    flops.ss2d_scan,
)
ss2d_scan_backward = define(
    "ss2d_scan_backward(Tensor dy, Tensor x, Tensor proj, Tensor dt_projs_weight, "
    "Tensor dt_projs_bias, Tensor A_logs, Tensor Ds, Tensor states, str backend, "
    "bool[]? wanted=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    flops.ss2d_scan_backward,
)
# A gradient's product is added in place, which torch does not count.
register_formula(torch.ops.aten.addmm_, flops.addmm_)


# ---- autograd


def _projection(x: Tensor, x_proj_weight: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, H, W, D) of x (B, D, H, W), contiguous in channels_last; and proj."""
    x = x.permute(0, 2, 3, 1)
    directions, rows, channels = x_proj_weight.shape
    weight = x_proj_weight.reshape(-1, channels).to(x.dtype)
    return x, F.linear(x, weight).view(*x.shape[:3], directions, rows)


@bound_once
class _SS2D(torch.autograd.Function):
    """The projection of x and the scan as one node of autograd: of small images each node, cast
    and sum of two gradients costs as much as a kernel.

    Keeps the inputs, the projection, and one state per chunk. Whatever casts the weights need is
    done in the backward pass once more, so that no copies of them are kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        x_proj_weight: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        backend: str,
        out_dtype: torch.dtype,
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels, proj = _projection(x, x_proj_weight)
        dt_weight = dt_projs_weight.to(x.dtype)
        inputs = (pixels, proj, dt_weight, dt_projs_bias, A_logs, Ds)
        y, states = ss2d_scan(*inputs, backend, out_dtype, save)
        # Detached: what autograd takes for a view made in here, nobody may change in place.
        return y.permute(0, 3, 1, 2).detach(), proj, states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.backend, _, _ = inputs
        _, proj, states = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(proj, states)
        ctx.save_for_backward(*tensors, proj, states)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:6]
        if dy is None or not any(wanted):
            return (None,) * 9
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, ctx.backend, wanted)
        return (*spread(found, wanted), None, None, None)


def _gradients(
    dy: Tensor,
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    proj: Tensor,
    states: Tensor,
    backend: str,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    """The wanted ones of the six gradients from x to Ds."""
    dt_weight = dt_projs_weight.to(x.dtype)
    pixels, dy = x.permute(0, 2, 3, 1), dy.permute(0, 2, 3, 1).contiguous()
    inputs = (pixels, proj, dt_weight, dt_projs_bias, A_logs, Ds)
    if states.dim() == 1:  # saved by nobody: autograd was asked for from outside of the call
        _, states = ss2d_scan(*inputs, backend, dy.dtype, True)
    projection = wanted[0] or wanted[1]
    of_scan = [wanted[0], projection, *wanted[2:]]
    dx, dproj, ddt_weight, *others = ss2d_scan_backward(dy, *inputs, states, backend, of_scan)
    gradients = [g for g, is_wanted in zip(others, wanted[3:], strict=True) if is_wanted]
    if wanted[2]:
        gradients.insert(0, ddt_weight.to(dt_projs_weight.dtype))
    if projection:
        channels = x.shape[1]
        rows = dproj.reshape(-1, x_proj_weight.shape[0] * x_proj_weight.shape[1])
        with autocast_off(x):
            if wanted[1]:
                dweight = _product(rows.t(), pixels.reshape(-1, channels), x_proj_weight.dtype)
                gradients.insert(0, dweight.view(x_proj_weight.shape))
            if wanted[0]:
                weight = x_proj_weight.reshape(-1, channels).to(x.dtype)
                # The product is added to dx where it lies, and rounded once.
                dx.view(-1, channels).addmm_(rows, weight)
                gradients.insert(0, dx.permute(0, 3, 1, 2))
    return tuple(gradients)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b in a dtype: float32 of 16-bit factors, on CUDA, without a cast of its own."""
    if a.is_cuda and a.itemsize == 2 and dtype == torch.float32 and torch.version.hip is None:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    backend: Backend,
    out_dtype: torch.dtype,
    save: bool,
) -> Tensor:
    """y (B, D, H, W) by a backend's kernels.

    x (B, D, H, W), contiguous in channels_last; dt_projs_bias, A_logs, Ds in the state's dtype.
    save: whether gradients are wanted.
    """
    parameters = (t.contiguous() for t in (dt_projs_weight, dt_projs_bias, A_logs, Ds))
    inputs = (x, x_proj_weight, *parameters)
    y: Tensor = apply(_SS2D, *inputs, backend.name, out_dtype, save)[0]
    return y
