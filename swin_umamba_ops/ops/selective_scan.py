"""The one-dimensional scan: its ops, and autograd around them.

    swin_umamba::selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus,
                           backend, out_dtype, save) -> (out, last_state, states)
    swin_umamba::selective_scan_backward(dout, dlast, u, delta, A, Bs, Cs, Ds, delta_bias,
                           delta_softplus, states, backend, wanted) -> seven gradients

The tensors are those of ScanInputs, dlast and the last state (B, D, N) in the state's dtype, out
(B, D, L) in out_dtype, states (B, C, D, N) and wanted as in ops/ss2d.py; the gradient of an input
that is None is empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends, flops
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.inputs import ALL_SCAN, ScanInputs, ScanWanted
from swin_umamba_ops.numerics import state_dtype
from swin_umamba_ops.ops._check import has_shape, is_shape, remembered, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    define,
    first_derivative,
    like_wanted,
    only_wanted,
    picked,
    spread,
    takes,
)


@remembered
def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """ValueError or TypeError unless ScanInputs are consistent."""
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


@remembered
def _check_backward(
    dout: Tensor, dlast: Tensor | None, u: Tensor, A: Tensor, states: Tensor, chunk: int
) -> None:
    batch, channels, length = u.shape
    is_shape("dout", dout, u.shape)
    if dlast is not None:
        has_shape("dlast", dlast, batch, channels, A.shape[1])
    has_shape("states", states, batch, -(-length // chunk), *A.shape)
    same_dtype(A.dtype, ("states", "dlast"), (states, dlast))


def _kernels(backend: str, inputs: ScanInputs) -> Any:
    """The backend's kernels for these inputs; RuntimeError if it does not support them."""
    _check(*inputs.tensors)
    u = inputs.u
    return backends.kernels("selective_scan", backend, u.device, u.dtype, inputs.A.shape[1])


def _outputs(
    inputs: ScanInputs, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    u, A = inputs.u, inputs.A
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
    inputs: ScanInputs, backend: str, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _kernels(backend, inputs)
    if inputs.u.shape[0] == 0:
        return _outputs(inputs, backend, out_dtype, save)
    result: tuple[Tensor, Tensor, Tensor] = kernels.selective_scan_forward(inputs, out_dtype, save)
    return result


def _backward(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels = _kernels(backend, inputs)
    _check_backward(dout, dlast, inputs.u, inputs.A, states, kernels.chunk_length)
    chosen = ALL_SCAN if wanted is None else ScanWanted(*wanted)
    if inputs.u.shape[0] == 0:
        gradients = [None if t is None else torch.zeros_like(t) for t in inputs.tensors]
    else:
        gradients = kernels.selective_scan_backward(dout, dlast, inputs, states, chosen)
    return only_wanted(inputs.tensors, gradients, chosen)


def _backward_fake(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    backend: str,
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted(inputs.tensors, wanted or ALL_SCAN)


selective_scan_op = define(
    "selective_scan({inputs}, str backend, ScalarType out_dtype, bool save) "
    "-> (Tensor out, Tensor last_state, Tensor states)",
    _forward,
    _outputs,
    flops.selective_scan,
    ScanInputs,
)
selective_scan_backward_op = define(
    "selective_scan_backward(Tensor dout, Tensor? dlast, {inputs}, Tensor states, str backend, "
    "bool[]? wanted=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    flops.selective_scan_backward,
    ScanInputs,
)


# ---- autograd


@takes(11)
class _SelectiveScan(torch.autograd.Function):
    """Keeps the inputs and one state per chunk."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """ScanInputs, then backend, out_dtype and save."""
        result: tuple[Tensor, Tensor, Tensor] = selective_scan_op(*arguments)
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
        *tensors, states = ctx.saved_tensors
        if dout is None:
            dout = torch.zeros_like(tensors[0], dtype=ctx.out_dtype)
        given = (*tensors, ctx.delta_softplus, states, ctx.backend, wanted)
        found = first_derivative(_gradients, dout, dlast, *given)
        return (*spread(found, wanted), None, None, None, None)


def _gradients(dout: Tensor, dlast: Tensor | None, *given: Any) -> tuple[Tensor, ...]:
    """The wanted gradients of the tensors of ScanInputs."""
    *inputs, states, backend, wanted = given
    if states.dim() == 1:  # not saved: autograd was requested from outside of the call
        *_, states = selective_scan_op(*inputs, backend, dout.dtype, True)
    gradients = selective_scan_backward_op(
        dout.contiguous(), None if dlast is None else dlast.contiguous(), *inputs, states, backend,
        wanted,
    )  # fmt: skip
    return picked(gradients, wanted)


def selective_scan(
    inputs: ScanInputs, backend: Backend, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor]:
    """out (B, D, L) and the last state (B, D, N) by a backend's kernels.

    The inputs are the op's, of any strides. save: whether gradients are wanted.
    """
    tensors = [None if t is None else t.contiguous() for t in inputs.tensors]
    out, last, _ = apply(
        _SelectiveScan, save, *tensors, inputs.delta_softplus, backend.name, out_dtype, save
    )
    return out, last
