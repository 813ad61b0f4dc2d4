"""The four-direction scan: its ops, and autograd around them and the projection before them.

    swin_umamba::ss2d_scan(x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds,
                           backend, out_dtype, save) -> (y, states)
    swin_umamba::ss2d_scan_backward(dy, x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds,
                           states, backend, wanted) -> six gradients

The tensors are those of SS2DInputs. y is (B, H, W, D) in out_dtype. states (B, 4, C, D, N), in the
state's dtype, contains the state entering each chunk of steps in each direction's order, from which
the backward pass recomputes all others; it is empty with save=False. wanted: which gradients
(default: all); the others are empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends, flops
from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.inputs import ALL_SS2D, SS2DArguments, SS2DInputs, SS2DWanted
from swin_umamba_ops.numerics import as_dtype, state_dtype
from swin_umamba_ops.ops._check import has_shape, is_shape, remembered, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    define,
    first_derivative,
    like_wanted,
    only_wanted,
    picked,
    register_formula,
    spread,
    takes,
)
from swin_umamba_ops.scan_order import DIRECTIONS


@remembered
def _check(
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> None:
    """ValueError or TypeError unless SS2DInputs are consistent."""
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


@remembered
def _check_backward(dy: Tensor, x: Tensor, A_logs: Tensor, states: Tensor, chunk: int) -> None:
    batch, height, width, channels = x.shape
    is_shape("dy", dy, x.shape)
    chunks = -(-height * width // chunk)
    is_shape("states", states, (batch, DIRECTIONS, chunks, channels, A_logs.shape[1]))
    same_dtype(state_dtype(x.dtype), ("states",), (states,))


def _kernels(backend: str, inputs: SS2DInputs) -> Any:
    """The backend's kernels for these inputs; RuntimeError if it does not support them."""
    _check(*inputs)
    x = inputs.x
    return backends.kernels("ss2d", backend, x.device, x.dtype, inputs.A_logs.shape[1])


def _outputs(
    inputs: SS2DInputs, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor]:
    x = inputs.x
    batch, height, width, channels = x.shape
    shape: tuple[int, ...] = (0,)
    if save:
        chunk = backends.load(backends.BACKENDS[backend].kernels["ss2d"]).chunk_length
        chunks = (height * width + chunk - 1) // chunk
        shape = (batch, DIRECTIONS, chunks, channels, inputs.A_logs.shape[1])
    return (
        torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format),
        x.new_empty(shape, dtype=state_dtype(x.dtype)),
    )


def _forward(
    inputs: SS2DInputs, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor]:
    kernels = _kernels(backend, inputs)
    if inputs.x.shape[0] == 0:
        return _outputs(inputs, backend, out_dtype, save)
    result: tuple[Tensor, Tensor] = kernels.ss2d_forward(inputs, out_dtype, save)
    return result


def _backward(
    dy: Tensor,
    inputs: SS2DInputs,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels = _kernels(backend, inputs)
    _check_backward(dy, inputs.x, inputs.A_logs, states, kernels.chunk_length)
    chosen = ALL_SS2D if wanted is None else SS2DWanted(*wanted)
    if inputs.x.shape[0] == 0:
        gradients = tuple(torch.zeros_like(t) for t in inputs)
    else:
        gradients = kernels.ss2d_backward(dy, inputs, states, chosen)
    return only_wanted(inputs, gradients, chosen)


def _backward_fake(
    dy: Tensor,
    inputs: SS2DInputs,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted(inputs, wanted or ALL_SS2D)


ss2d_scan = define(
    "ss2d_scan({inputs}, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor y, Tensor states)",
    _forward,
    _outputs,
    flops.ss2d_scan,
    SS2DInputs,
)
ss2d_scan_backward = define(
    "ss2d_scan_backward(Tensor dy, {inputs}, Tensor states, str backend, bool[]? wanted=None) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    flops.ss2d_scan_backward,
    SS2DInputs,
)
# A gradient's product is added in place, which torch does not count.
register_formula(torch.ops.aten.addmm_, flops.addmm_)


# ---- autograd


def _projected(arguments: SS2DArguments, proj: Tensor | None = None) -> SS2DInputs:
    """The scan's inputs: x channels last, its projection if not given, all in its dtype."""
    x, x_proj_weight, dt_projs_weight, *parameters = arguments
    pixels = x.permute(0, 2, 3, 1)
    if proj is None:
        directions, rows, channels = x_proj_weight.shape
        weight = as_dtype(x_proj_weight.reshape(-1, channels), x.dtype)
        proj = F.linear(pixels, weight).view(*pixels.shape[:3], directions, rows)
    return SS2DInputs(pixels, proj, as_dtype(dt_projs_weight, x.dtype), *parameters)


@takes(9)
class _SS2D(torch.autograd.Function):
    """The projection of x and the scan as one autograd node: for small images each node, cast and
    sum of two gradients costs as much as a kernel.

    Keeps the inputs, the projection, and one state per chunk. Casts of the weights are repeated in
    the backward pass, so that no copies of them are kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """SS2DArguments, then backend, out_dtype and save."""
        inputs = _projected(SS2DArguments(*arguments[:6]))
        y, states = ss2d_scan(*inputs, *arguments[6:])
        # Detached, since autograd would treat them as views created here, which must not be
        # modified in place.
        return y.permute(0, 3, 1, 2).detach(), inputs.proj, states

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


def _gradients(dy: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """The wanted gradients of SS2DArguments."""
    *tensors, proj, states, backend, wanted = given
    arguments = SS2DArguments(*tensors)
    x, x_proj_weight, dt_projs_weight = arguments[:3]
    inputs = _projected(arguments, proj)
    dy = dy.permute(0, 2, 3, 1).contiguous()
    if states.dim() == 1:  # not saved: autograd was requested from outside of the call
        _, states = ss2d_scan(*inputs, backend, dy.dtype, True)
    projection = wanted[0] or wanted[1]
    of_scan = (wanted[0], projection, *wanted[2:])
    dx, dproj, ddt_weight, *others = ss2d_scan_backward(dy, *inputs, states, backend, of_scan)
    gradients = list(picked(others, wanted[3:]))
    if wanted[2]:
        gradients.insert(0, as_dtype(ddt_weight, dt_projs_weight.dtype))
    if projection:
        channels = x.shape[1]
        rows = dproj.view(-1, x_proj_weight.shape[0] * x_proj_weight.shape[1])
        with autocast_off(x):
            if wanted[1]:
                dweight = _product(rows.t(), inputs.x.view(-1, channels), x_proj_weight.dtype)
                gradients.insert(0, dweight.view(x_proj_weight.shape))
            if wanted[0]:
                weight = as_dtype(x_proj_weight.reshape(-1, channels), x.dtype)
                # The product is added to dx in place, and rounded only once.
                dx.view(-1, channels).addmm_(rows, weight)
                gradients.insert(0, dx.permute(0, 3, 1, 2))
    return tuple(gradients)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b in a given dtype: float32 from 16-bit factors on CUDA, without a separate cast."""
    if a.is_cuda and a.itemsize == 2 and dtype == torch.float32 and torch.version.hip is None:
        return torch.mm(a, b, out_dtype=dtype)
    return as_dtype(a @ b, dtype)


def ss2d(arguments: SS2DArguments, backend: Backend, out_dtype: torch.dtype, save: bool) -> Tensor:
    """y (B, D, H, W) by a backend's kernels.

    x is contiguous in channels_last; dt_projs_bias, A_logs and Ds have the state's dtype. save:
    whether gradients are wanted.
    """
    x, x_proj_weight, *parameters = arguments
    parameters = [t.contiguous() for t in parameters]
    inputs = (x, x_proj_weight, *parameters)
    y: Tensor = apply(_SS2D, save, *inputs, backend.name, out_dtype, save)[0]
    return y
