"""The public scans: check, cast, resolve a backend once, and hand over to the ops."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.autocast import autocast_dtype, autocast_off
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.checks import check_out_dtype, check_selective_scan, check_ss2d
from swin_umamba_ops.numerics import state_dtype
from swin_umamba_ops.ops import selective_scan as scan_ops
from swin_umamba_ops.ops import ss2d as ss2d_ops
from swin_umamba_ops.ops._define import wants_grad
from swin_umamba_ops.resolving import resolved


def _refuse_grad(served: Backend, *tensors: Tensor | None) -> None:
    """The scan operator behind "export" has wrong second derivatives: it gets no first ones."""
    if served.name == backends.EXPORT and wants_grad(*tensors):
        raise RuntimeError("backend 'export' has no gradients: call it under torch.no_grad()")


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """VMamba's four-direction selective scan of an image, from input to merged output.

    x: (B, D, H, W), float64, float32, float16 or bfloat16; any strides, fastest in
        channels_last. Under autocast it is cast to autocast's dtype (float64 is left alone).
    x_proj_weight: (4, R + 2N, D); dt_projs_weight: (4, D, R): used in x's dtype.
    dt_projs_bias: (4, D); A_logs: (4 * D, N); Ds: (4 * D,): used in float32 (float64 with
        float64 x). Parameters are float32 or of x's dtype.
    out_dtype: of the result; None means float32 for 16-bit x and x's dtype otherwise.
    backend: "auto", or one of `available_backends()`, which then never falls back.

    Returns y: (B, D, H, W), channels_last in memory. Gradients flow to all six tensors, each in
    its own dtype; second derivatives raise except with backend="reference", and "export" refuses
    inputs that want gradients.
    Raises TypeError or ValueError naming the argument that does not fit, and RuntimeError for a
    named backend that cannot serve.
    """
    check_out_dtype(out_dtype)
    wanted = autocast_dtype(x) if isinstance(x, Tensor) else None
    check_ss2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, wanted)
    dtype = x.dtype
    if wanted is not None and dtype != torch.float64:
        dtype = wanted
    served = resolved("ss2d", backend, x.device, dtype, A_logs.shape[1])
    _refuse_grad(served, x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    accumulate = state_dtype(dtype)
    if out_dtype is None:
        out_dtype = accumulate
    if not dt_projs_bias.dtype == A_logs.dtype == Ds.dtype == accumulate:
        dt_projs_bias, A_logs, Ds = (t.to(accumulate) for t in (dt_projs_bias, A_logs, Ds))

    if (formula := served.formulas.get("ss2d")) is not None:
        with autocast_off(x):
            y: Tensor = formula(
                x.to(dtype), x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds
            )
            return y.to(out_dtype, memory_format=torch.channels_last)

    _, D, H, W = x.shape
    if x.stride() != (H * W * D, 1, W * D, D):
        pixels = x.permute(0, 2, 3, 1).to(dtype, memory_format=torch.contiguous_format)
        x = pixels.contiguous().permute(0, 3, 1, 2)
    elif x.dtype != dtype:  # its strides stay
        x = x.to(dtype)
    inputs = (x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return ss2d_ops.ss2d(*inputs, served, out_dtype, wants_grad(*inputs))


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    *,
    backend: str = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The one-dimensional selective scan, with mamba-ssm's arguments and meaning.

    u, delta: (B, D, L); A: (D, N), real; B, C: (B, N, L) or (B, G, N, L), channel d in group
    d // (D // G); D, delta_bias: (D,); z: (B, D, L), gates the output with SiLU.
    u, delta, B and C are brought to the widest of their dtypes; A, D and delta_bias are used in
    float32 (float64 with float64 u). CUDA kernels are at their fastest with 9 to 16 states and L
    a multiple of 4.

    Returns out (B, D, L) in u's dtype; with return_last_state also the last state (B, D, N),
    float32 (float64 with float64 u), which is differentiable. Errors as in `ss2d`.
    """
    check_selective_scan(u, delta, A, B, C, D, z, delta_bias)
    dtype = u.dtype
    for t in (delta, B, C):
        dtype = torch.promote_types(dtype, t.dtype)
    served = resolved("selective_scan", backend, u.device, dtype, A.shape[1])
    _refuse_grad(served, u, delta, A, B, C, D, z, delta_bias)
    accumulate = state_dtype(dtype)
    Bs = (B if B.dim() == 4 else B.unsqueeze(1)).to(dtype)
    Cs = (C if C.dim() == 4 else C.unsqueeze(1)).to(dtype)
    A = A.to(accumulate)
    Ds = None if D is None else D.to(accumulate)
    bias = None if delta_bias is None else delta_bias.to(accumulate)
    inputs = (u.to(dtype), delta.to(dtype), A, Bs, Cs, Ds, bias)

    if (formula := served.formulas.get("selective_scan")) is not None:
        out, last = formula(*inputs, delta_softplus)
    else:
        out_dtype = accumulate if z is not None else u.dtype
        out, last = scan_ops.selective_scan(
            *inputs, delta_softplus, served, out_dtype, wants_grad(*inputs)
        )
    if z is not None:
        out = out * F.silu(z.to(accumulate))
    out = out.to(u.dtype)
    return (out, last) if return_last_state else out
