"""The torch.library ops: schemas, dispatch to a backend, fakes, autograd.

    swin_umamba::ss2d_scan(x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds,
                           backend, out_dtype, save) -> (y, states)
    swin_umamba::selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus,
                           backend, out_dtype, save) -> (out, last_state, states)
    and one `_backward` op for each.

ss2d_scan:      x (B, H, W, D) and proj (B, H, W, 4, R + 2N), contiguous, of one dtype, the last
                axis of proj being [dt_r, Bs, Cs]; dt_projs_weight (4, D, R) in that dtype;
                dt_projs_bias (4, D), A_logs (4 * D, N), Ds (4 * D,) in the state's dtype.
                y (B, H, W, D) in out_dtype; states (B, 4, C, D, N).
selective_scan: u, delta (B, D, L), Bs, Cs (B, G, N, L), contiguous, of one dtype; A (D, N),
                Ds (D,) or None, delta_bias (D,) or None in the state's dtype.
                out (B, D, L) in out_dtype; last_state (B, D, N); states (B, C, D, N).

The state's dtype is float64 for float64 inputs and float32 for all others. `states` holds the
state entering each chunk of `chunk_length` steps along each direction's own order: all that the
backward needs to rebuild the others. With save=False it is empty and no gradient can be taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from swin_umamba_ops import backends, flops
from swin_umamba_ops.eager import past_dispatcher
from swin_umamba_ops.numerics import state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS

_LIB = torch.library.Library("swin_umamba", "DEF")
# Compiled graphs hand over the strides they were traced with: contiguous ones.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
for _schema in (
    "ss2d_scan(Tensor x, Tensor proj, Tensor dt_projs_weight, Tensor dt_projs_bias, "
    "Tensor A_logs, Tensor Ds, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor y, Tensor states)",
    "ss2d_scan_backward(Tensor dy, Tensor x, Tensor proj, Tensor dt_projs_weight, "
    "Tensor dt_projs_bias, Tensor A_logs, Tensor Ds, Tensor states, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs, Tensor? Ds, "
    "Tensor? delta_bias, bool delta_softplus, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor out, Tensor last_state, Tensor states)",
    "selective_scan_backward(Tensor dout, Tensor? dlast, Tensor u, Tensor delta, Tensor A, "
    "Tensor Bs, Tensor Cs, Tensor? Ds, Tensor? delta_bias, bool delta_softplus, Tensor states, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
):
    _LIB.define(_schema, tags=_TAGS)
_OPS = torch.ops.swin_umamba


def _chunks(length: int, backend: str) -> int:
    chunk = backends.load(backend).chunk_length
    return (length + chunk - 1) // chunk


# ---- ss2d_scan


def _ss2d_outputs(
    x: Tensor, A_logs: Tensor, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = x.shape
    shape: tuple[int, ...] = (0,)
    if save:
        chunks = _chunks(height * width, backend)
        shape = (batch, DIRECTIONS, chunks, channels, A_logs.shape[1])
    return (
        torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format),
        x.new_empty(shape, dtype=state_dtype(x.dtype)),
    )


def _ss2d_scan(
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
    if x.shape[0] == 0:
        return _ss2d_outputs(x, A_logs, backend, out_dtype, save)
    return backends.load(backend).ss2d_forward(
        x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds, out_dtype, save
    )


def _ss2d_scan_fake(
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
    return _ss2d_outputs(x, A_logs, backend, out_dtype, save)


def _ss2d_scan_backward(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    inputs = (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    if x.shape[0] == 0:
        return tuple(torch.zeros_like(t) for t in inputs)
    return backends.load(backend).ss2d_backward(dy, *inputs, states)


def _ss2d_scan_backward_fake(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds))


class _SS2DScan(torch.autograd.Function):
    """Autograd of ss2d_scan: keeps the inputs and one state per chunk."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, states = _OPS.ss2d_scan.default(*inputs)
        *tensors, backend, _, save = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(states)
        ctx.save_for_backward(*tensors, states)
        ctx.backend, ctx.save = backend, save
        return y, states

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 9
        _require_saved(ctx, "ss2d_scan")
        grads = _OPS.ss2d_scan_backward.default(dy.contiguous(), *ctx.saved_tensors, ctx.backend)
        return (*grads, None, None, None)


# ---- selective_scan


def _selective_outputs(
    u: Tensor, A: Tensor, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    accumulate = state_dtype(u.dtype)
    shape: tuple[int, ...] = (0,)
    if save:
        shape = (batch, _chunks(length, backend), channels, A.shape[1])
    return (
        torch.empty_like(u, dtype=out_dtype, memory_format=torch.contiguous_format),
        u.new_empty((batch, channels, A.shape[1]), dtype=accumulate),
        u.new_empty(shape, dtype=accumulate),
    )


def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if u.shape[0] == 0:
        return _selective_outputs(u, A, backend, out_dtype, save)
    return backends.load(backend).selective_scan_forward(
        u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus, out_dtype, save
    )


def _selective_scan_fake(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _selective_outputs(u, A, backend, out_dtype, save)


def _selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    if u.shape[0] == 0:
        return _empty_selective_gradients(u, delta, A, Bs, Cs, Ds, delta_bias, torch.zeros_like)
    return backends.load(backend).selective_scan_backward(
        dout, dlast, u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus, states
    )


def _selective_scan_backward_fake(
    dout: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, ...]:
    return _empty_selective_gradients(u, delta, A, Bs, Cs, Ds, delta_bias, torch.empty_like)


def _empty_selective_gradients(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    make: Any,
) -> tuple[Tensor, ...]:
    return tuple(
        A.new_empty(0) if t is None else make(t) for t in (u, delta, A, Bs, Cs, Ds, delta_bias)
    )


class _SelectiveScan(torch.autograd.Function):
    """Autograd of selective_scan: keeps the inputs and one state per chunk."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            out, last_state, states = selective_scan(*inputs)
        *tensors, delta_softplus, backend, out_dtype, save = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(states)
        ctx.save_for_backward(*tensors, states)
        ctx.delta_softplus, ctx.backend = delta_softplus, backend
        ctx.out_dtype, ctx.save = out_dtype, save
        return out, last_state, states

    @staticmethod
    def backward(
        ctx: Any, dout: Tensor | None, dlast: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        if dout is None and dlast is None:
            return (None,) * 11
        _require_saved(ctx, "selective_scan")
        u, delta, A, Bs, Cs, Ds, delta_bias, states = ctx.saved_tensors
        if dout is None:
            dout = torch.zeros_like(u, dtype=ctx.out_dtype)
        grads = _selective_scan_gradients(
            dout.contiguous(),
            None if dlast is None else dlast.contiguous(),
            u,
            delta,
            A,
            Bs,
            Cs,
            Ds,
            delta_bias,
            ctx.delta_softplus,
            states,
            ctx.backend,
        )
        dDs = None if Ds is None else grads[5]
        dbias = None if delta_bias is None else grads[6]
        return (*grads[:5], dDs, dbias, None, None, None, None)


# ---- registration


def _require_saved(ctx: Any, op: str) -> None:
    if not ctx.save:
        raise RuntimeError(
            f"swin_umamba::{op} ran with save=False: it kept no states to rebuild from"
        )


class _NoSecondDerivative(torch.autograd.Function):
    """Autograd of the backward ops: a clear error in place of a silently missing gradient."""

    @staticmethod
    def forward(ctx: Any, op: Any, *inputs: Any) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            grads: tuple[Tensor, ...] = op(*inputs)
        return grads

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "second derivatives of swin_umamba's scans are not implemented; "
            "backend='reference' has them"
        )


def first_derivative_only(op: Any) -> Callable[..., tuple[Tensor, ...]]:
    """A function whose gradients raise; plain backward passes run it with gradients off."""

    def autograd(*inputs: Any) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...]
        if torch.is_grad_enabled():
            grads = _NoSecondDerivative.apply(op, *inputs)  # type: ignore[no-untyped-call]
        else:
            with torch._C._AutoDispatchBelowAutograd():
                grads = op(*inputs)
        return grads

    return autograd


def _register(name: str, impl: Any, fake: Any, autograd: Any, formula: Any) -> None:
    # Autograd straight on its dispatch key: torch.library.register_autograd does the same through
    # generic code that costs 30 us more a call, and lets forward-mode derivatives pass as zero
    # where an autograd.Function raises.
    _LIB.impl(name, impl, "CompositeExplicitAutograd")
    _LIB.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"swin_umamba::{name}", fake, lib=_LIB)
    register_flop_formula(getattr(_OPS, name))(formula)


_register("ss2d_scan", _ss2d_scan, _ss2d_scan_fake, _SS2DScan.apply, flops.ss2d_scan)
_register(
    "ss2d_scan_backward",
    _ss2d_scan_backward,
    _ss2d_scan_backward_fake,
    first_derivative_only(_OPS.ss2d_scan_backward.default),
    flops.ss2d_scan_backward,
)
_register(
    "selective_scan",
    _selective_scan,
    _selective_scan_fake,
    _SelectiveScan.apply,
    flops.selective_scan,
)
_register(
    "selective_scan_backward",
    _selective_scan_backward,
    _selective_scan_backward_fake,
    first_derivative_only(_OPS.selective_scan_backward.default),
    flops.selective_scan_backward,
)


# ---- the ops as functional.py and projected.py call them


# A named overload saves the look-up.
ss2d_scan = past_dispatcher(_OPS.ss2d_scan.default, _ss2d_scan)
ss2d_scan_backward = past_dispatcher(_OPS.ss2d_scan_backward.default, _ss2d_scan_backward)
selective_scan = past_dispatcher(_OPS.selective_scan.default, _selective_scan, _SelectiveScan)
_selective_scan_gradients = first_derivative_only(
    past_dispatcher(_OPS.selective_scan_backward.default, _selective_scan_backward)
)
