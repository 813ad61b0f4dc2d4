"""The one-dimensional scan: its ops, and autograd around them.

    swin_umamba::selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus,
                           backend, out_dtype, save) -> (out, last_state, states)
    swin_umamba::selective_scan_backward(dout, dlast, u, delta, A, Bs, Cs, Ds, delta_bias,
                           delta_softplus, states, backend, wanted) -> seven gradients

u, delta (B, D, L), Bs, Cs (B, G, N, L), of one dtype; A (D, N), Ds (D,) or None, delta_bias (D,) or
None in the state's dtype, which is float64 for float64 u and float32 for all others. out (B, D, L)
in out_dtype; last_state (B, D, N). states (B, C, D, N) and wanted as in ops/ss2d.py; the gradient
of an input that is None is empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends, flops
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.backends._memory import addressable, all_addressable
from swin_umamba_ops.numerics import state_dtype
from swin_umamba_ops.ops._check import has_shape, is_shape, same_dtype
from swin_umamba_ops.ops._define import apply, bound_once, define, empty, first_derivative, spread

_ALL = (True,) * 7
_Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def _kernels(backend: str, inputs: _Inputs) -> Any:
    """The backend's kernels for these inputs. ValueError or TypeError for those that do not fit
    together, RuntimeError for a backend that does not take them."""
    u, delta, A, Bs, Cs, Ds, delta_bias = inputs
    has_shape("u", u, "B", "D", "L")
    batch, channels, length = u.shape
    is_shape("delta", delta, u.shape)
    has_shape("A", A, channels, "N")
    has_shape("Bs", Bs, batch, "G", A.shape[1], length)
    is_shape("Cs", Cs, Bs.shape)
    if channels % Bs.shape[1]:
        raise ValueError(f"Bs has {Bs.shape[1]} groups, which do not divide D = {channels}")
    for name, t in (("Ds", Ds), ("delta_bias", delta_bias)):
        if t is not None:
            is_shape(name, t, (channels,))
    same_dtype(u.dtype, ("delta", "Bs", "Cs"), (delta, Bs, Cs))
    same_dtype(state_dtype(u.dtype), ("A", "Ds", "delta_bias"), (A, Ds, delta_bias))
    return backends.kernels("selective_scan", backend, u.device, u.dtype, A.shape[1])


def _outputs(
    u: Tensor, A: Tensor, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    accumulate = state_dtype(u.dtype)
    shape: tuple[int, ...] = (0,)
    if save:
        module = backends.BACKENDS[backend].kernels["selective_scan"]
        chunk = backends.load(module).chunk_length
        shape = (batch, (length + chunk - 1) // chunk, channels, A.shape[1])
    return (
        torch.empty_like(u, dtype=out_dtype, memory_format=torch.contiguous_format),
        u.new_empty((batch, channels, A.shape[1]), dtype=accumulate),
        u.new_empty(shape, dtype=accumulate),
    )


def _forward(
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
    inputs = (u, delta, A, Bs, Cs, Ds, delta_bias)
    kernels = _kernels(backend, inputs)
    if u.shape[0] == 0:
        return _outputs(u, A, backend, out_dtype, save)
    result: tuple[Tensor, Tensor, Tensor] = kernels.selective_scan_forward(
        *all_addressable(*inputs), delta_softplus, out_dtype, save
    )
    return result


def _forward_fake(
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
    return _outputs(u, A, backend, out_dtype, save)


def _backward(
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
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    inputs = (u, delta, A, Bs, Cs, Ds, delta_bias)
    kernels = _kernels(backend, inputs)
    batch, channels, length = u.shape
    is_shape("dout", dout, u.shape)
    if dlast is not None:
        has_shape("dlast", dlast, batch, channels, A.shape[1])
    has_shape("states", states, batch, -(-length // kernels.chunk_length), *A.shape)
    same_dtype(A.dtype, ("states", "dlast"), (states, dlast))
    chosen = tuple(wanted or _ALL)
    if batch == 0:
        gradients = tuple(A.new_empty(0) if t is None else torch.zeros_like(t) for t in inputs)
    else:
        gradients = kernels.selective_scan_backward(
            addressable(dout), addressable(dlast), *all_addressable(*inputs), delta_softplus,
            addressable(states), wanted=chosen,
        )  # fmt: skip
    return tuple(
        g if is_wanted else empty(A) for g, is_wanted in zip(gradients, chosen, strict=True)
    )


def _backward_fake(
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
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format)
        if t is not None and is_wanted
        else empty(A)
        for t, is_wanted in zip((u, delta, A, Bs, Cs, Ds, delta_bias), wanted or _ALL, strict=True)
    )


selective_scan_op = define(
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs, Tensor? Ds, "
    "Tensor? delta_bias, bool delta_softplus, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor out, Tensor last_state, Tensor states)",
    _forward,
    _forward_fake,
    flops.selective_scan,
)
selective_scan_backward_op = define(
    "selective_scan_backward(Tensor dout, Tensor? dlast, Tensor u, Tensor delta, Tensor A, "
    "Tensor Bs, Tensor Cs, Tensor? Ds, Tensor? delta_bias, bool delta_softplus, Tensor states, "
    "str backend, bool[]? wanted=None) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    flops.selective_scan_backward,
)


# ---- autograd


@bound_once
class _SelectiveScan(torch.autograd.Function):
    """Keeps the inputs and one state per chunk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
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
        inputs = (u, delta, A, Bs, Cs, Ds, delta_bias)
        result: tuple[Tensor, Tensor, Tensor] = selective_scan_op(
            *inputs, delta_softplus, backend, out_dtype, save
        )
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.delta_softplus, ctx.backend, ctx.out_dtype, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*tensors, output[2])

    @staticmethod
    def backward(
        ctx: Any, dout: Tensor | None, dlast: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:7]
        if (dout is None and dlast is None) or not any(wanted):
            return (None,) * 11
        if dout is None:
            dout = torch.zeros_like(ctx.saved_tensors[0], dtype=ctx.out_dtype)
        found = first_derivative(
            _gradients, dout, dlast, *ctx.saved_tensors, ctx.delta_softplus, ctx.backend, wanted
        )
        return (*spread(found, wanted), None, None, None, None)


def _gradients(
    dout: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    backend: str,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    """The wanted ones of the seven gradients from u to delta_bias."""
    inputs = (u, delta, A, Bs, Cs, Ds, delta_bias)
    if states.dim() == 1:  # saved by nobody: autograd was asked for from outside of the call
        *_, states = selective_scan_op(*inputs, delta_softplus, backend, dout.dtype, True)
    gradients = selective_scan_backward_op(
        dout.contiguous(), None if dlast is None else dlast.contiguous(), *inputs, delta_softplus,
        states, backend, list(wanted),
    )  # fmt: skip
    return tuple(g for g, is_wanted in zip(gradients, wanted, strict=True) if is_wanted)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: Backend,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """out (B, D, L) and the last state (B, D, N) by a backend's kernels.

    The inputs are the op's, of any strides.

    save: whether gradients are wanted.
    """
    inputs = (u, delta, A, Bs, Cs, Ds, delta_bias)
    out: Tensor
    last: Tensor
    out, last, _ = apply(
        _SelectiveScan,
        *(None if t is None else t.contiguous() for t in inputs),
        delta_softplus,
        backend.name,
        out_dtype,
        save,
    )
    return out, last
