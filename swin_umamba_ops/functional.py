"""The public scans: check, cast, resolve a backend once, and call the ops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.autocast import autocast_dtype, autocast_off
from swin_umamba_ops.backends import Backend, plain
from swin_umamba_ops.checks import check_out_dtype, check_selective_scan, check_ss2d, seqlens
from swin_umamba_ops.inputs import ScanInputs, SS2DArguments
from swin_umamba_ops.numerics import as_dtype, state_dtype
from swin_umamba_ops.ops import selective_scan as scan_ops
from swin_umamba_ops.ops import ss2d as ss2d_ops
from swin_umamba_ops.ops._define import wants_grad
from swin_umamba_ops.padding import pad_ranks_and_states
from swin_umamba_ops.resolving import resolved
from swin_umamba_ops.torch_private import transforms_active


def _refuse_grad(served: Backend, *tensors: Tensor | None) -> None:
    """The scan operator behind "export" has wrong second derivatives, so first ones are refused
    too, and transforms, under which it fails."""
    if served.name != backends.EXPORT:
        return
    if wants_grad(*tensors):
        raise RuntimeError("backend 'export' has no gradients: call it under torch.no_grad()")
    if not torch.compiler.is_compiling() and transforms_active():
        raise RuntimeError("backend 'export' has no transforms of torch.func: use another backend")


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

    x: (B, D, H, W), float64, float32, float16 or bfloat16; any strides, fastest in channels_last.
    Under autocast it is cast to autocast's dtype (float64 is left alone).
    x_proj_weight: (4, R + 2N, D); dt_projs_weight: (4, D, R): used in x's dtype.
    dt_projs_bias: (4, D); A_logs: (4 * D, N); Ds: (4 * D,): used in float32 (float64 with float64
    x). Parameters are float32 or of x's dtype.
    out_dtype: of the result; None means float32 for 16-bit x and x's dtype otherwise.
    backend: "auto", or one of `available_backends()`, which then never falls back.

    Returns y: (B, D, H, W), channels_last in memory. Gradients flow to all six tensors, each in its
    own dtype; second derivatives raise except with backend="reference", and "export" refuses inputs
    that require gradients.
    Raises TypeError or ValueError naming the invalid argument, and RuntimeError for a named backend
    that does not support the inputs.
    """
    check_out_dtype(out_dtype)
    wanted = autocast_dtype(x) if isinstance(x, Tensor) else None
    arguments = SS2DArguments(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    check_ss2d(arguments, wanted)
    dtype = x.dtype
    if wanted is not None and dtype != torch.float64:
        dtype = wanted
    served = resolved("ss2d", backend, x.device, dtype, A_logs.shape[1])
    _refuse_grad(served, *arguments)
    accumulate = state_dtype(dtype)
    if out_dtype is None:
        out_dtype = accumulate
    if not dt_projs_bias.dtype == A_logs.dtype == Ds.dtype == accumulate:
        cast = [t.to(accumulate) for t in (dt_projs_bias, A_logs, Ds)]
        arguments = SS2DArguments(x, x_proj_weight, dt_projs_weight, *cast)

    if (formula := served.formulas.get("ss2d")) is not None:
        with autocast_off(x):
            y: Tensor = formula(x.to(dtype), *arguments[1:])
            # Channels last by permutation: vmap does not know the memory format.
            return y.to(out_dtype).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    arguments = pad_ranks_and_states(served, dtype, arguments)
    _, D, H, W = x.shape
    if x.stride() != (H * W * D, 1, W * D, D):
        pixels = x.permute(0, 2, 3, 1).to(dtype, memory_format=torch.contiguous_format)
        x = pixels.contiguous().permute(0, 3, 1, 2)
    elif x.dtype != dtype:  # its strides stay
        x = x.to(dtype)
    arguments = SS2DArguments(x, *arguments[1:])
    return ss2d_ops.ss2d(arguments, served, out_dtype, wants_grad(*arguments))


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
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = "auto",
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
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = "auto",
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
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = "auto",
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
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str | None = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The one-dimensional selective scan, with mamba-ssm's arguments and semantics.

    u, delta: (B, D, L); A: (D, N); B, C: (B, N, L) or (B, G, N, L), channel d in group d // (D //
    G), or constant (D, N); D, delta_bias: (D,); z: (B, D, L), gates the output with SiLU.
    initial_state: (B, D, N), zero by default; it needs memory for a state at every step.
    cu_seqlens: (sequences + 1,) integers from 0 to L, the boundaries of consecutive sequences in L
    that are scanned one by one, from initial_state or from zero; read by the host.
    A may be complex, with N conjugate pairs of states: then B and C are real with length 2L, real
    and imaginary parts alternating, or, if constant, complex. Plain PyTorch computes it, on any
    device, and keeps the states of all steps for the backward pass.
    u, delta, B and C are cast to the widest of their dtypes; A, D and delta_bias are used in
    float32 (float64 with float64 u). CUDA kernels are fastest with 9 to 16 states and L a multiple
    of 4. backend: as in `ss2d`; None means "auto".

    Returns out (B, D, L) in u's dtype; with return_last_state also the last state (B, D, N) of the
    last sequence, float32 (float64 with float64 u), complex like A, which is differentiable.
    Errors as in `ss2d`.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, delta_bias, delta_softplus)
    check_selective_scan(inputs, z, initial_state)
    backend = backends.AUTO if backend is None else backend
    if cu_seqlens is None:
        out, last = _scan(inputs, z, initial_state, backend)
    else:
        parts = []
        for a, b in pairwise(seqlens(cu_seqlens, u.shape[2])):
            u_part, delta_part, z_part = _steps(a, b, u, delta, z)
            B_part, C_part = _steps(a, b, B, C, A=A)
            part = inputs._replace(u=u_part, delta=delta_part, Bs=B_part, Cs=C_part)
            parts.append(_scan(part, z_part, initial_state, backend))
        out, last = torch.cat([part for part, _ in parts], dim=2), parts[-1][1]
    return (out, last) if return_last_state else out


def _steps(first: int, end: int, *sequences: Any, A: Tensor | None = None) -> list[Any]:
    """These steps of each tensor; unchanged if it has no steps. With complex A a step is two
    entries."""
    places = 2 if A is not None and A.is_complex() else 1
    return [
        t if t is None or t.dim() == 2 else t[..., places * first : places * end] for t in sequences
    ]


def _map(t: Tensor, like: Tensor, u: Tensor, A: Tensor, dtype: torch.dtype) -> Tensor:
    """B or C as (B, G, N, L), complex with A; with one group per channel if either of the two is
    constant. like: the other one."""
    if A.is_complex() and not t.is_complex() and t.dim() > 2:
        parts = t.to(state_dtype(dtype)).unflatten(-1, (-1, 2))
        t = torch.view_as_complex(parts.contiguous())
    elif not A.is_complex():
        t = t.to(dtype)
    batch, channels, length = u.shape
    if t.dim() == 2:
        return t[None, :, :, None].expand(batch, channels, -1, length)
    if t.dim() == 3:
        t = t.unsqueeze(1)
    return t if like.dim() != 2 else t.repeat_interleave(channels // t.shape[1], dim=1)


def _scan(
    inputs: ScanInputs, z: Tensor | None, initial_state: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    """out (B, D, L) in u's dtype and the last state of one sequence.

    inputs: the public arguments, checked, of any dtypes, with B and C as given.
    """
    u, delta, A, B, C, D, bias, delta_softplus = inputs
    dtype = u.dtype
    for t in (delta, B, C):
        if t.dtype != dtype and not t.is_complex():
            dtype = torch.promote_types(dtype, t.dtype)
    op = "complex_scan" if A.is_complex() else "selective_scan"
    served = resolved(op, backend, u.device, dtype, A.shape[1])
    _refuse_grad(served, *inputs.tensors, z, initial_state)
    accumulate = state_dtype(dtype)
    inputs = ScanInputs(
        as_dtype(u, dtype),
        as_dtype(delta, dtype),
        A if A.is_complex() else as_dtype(A, accumulate),
        _map(B, C, u, A, dtype),
        _map(C, B, u, A, dtype),
        None if D is None else as_dtype(D, accumulate),
        None if bias is None else as_dtype(bias, accumulate),
        delta_softplus,
    )
    out_dtype = u.dtype if z is None and initial_state is None else accumulate

    with autocast_off(u):
        if A.is_complex():
            out, last = served.formulas[op](*inputs, initial_state)
        elif (formula := served.formulas.get(op)) is not None:
            out, last = formula(*inputs)
        else:
            out, last = scan_ops.selective_scan(
                inputs, served, out_dtype, wants_grad(*inputs.tensors)
            )
        if initial_state is not None and not A.is_complex():
            more, left = plain.response_to_state(inputs, initial_state)
            out, last = out + more, last + left
        if z is not None:
            out = out * F.silu(z.to(accumulate))
    return as_dtype(out, u.dtype), last
