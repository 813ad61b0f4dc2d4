"""Shared by all fused ops: from a record of inputs to a pair of ops, and autograd around both.

    swin_umamba::NAME({inputs}, backend) -> y, or (y, stats)
    swin_umamba::NAME_backward(dy, {inputs}, [stats,] backend, wanted) -> a gradient for each tensor

stats: float32 statistics of x computed by the forward pass for the backward pass. wanted: which
gradients; the others, and those of tensors that are None, are empty. A module with kernels has
NAME_forward and NAME_backward: see backends/protocols.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import torch
from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.ops._check import is_shape, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    define,
    first_derivative,
    only_wanted,
    picked,
    spread,
    takes,
    wants_grad,
)

Shape = tuple[int, ...]
Outputs = tuple[tuple[Shape, torch.dtype], ...]
_OPS: dict[str, FusedOp] = {}
# Programs exported before ops had this argument omit it.
_DEFAULT = "triton"
# Inputs of the one autograd.Function: name, backend, and as many as any op has. torch.compile
# counts them, so an op with fewer adds None.
_INPUTS = 9


def any_layout(t: Tensor) -> Tensor:
    return t


class FusedOp:
    """A fused op: called with a record of its inputs and a backend, it returns y, differentiable.

    inputs: a record class of swin_umamba_ops.inputs. The first tensor determines device and dtype.
    check: of a record; raises ValueError or TypeError unless its fields are consistent.
    outputs: from a record, the shape and dtype of y and, if any, of the statistics.
    size: from a record, the size argument of `backends.why_not`.
    images: fields that callers pass as (B, C, H, W) and the op takes as (B, H, W, C), like y.
    layouts: of fields, and of "dy", for which kernels need another layout than contiguous: a
    function that converts a tensor.
    flops: of the op and of its backward op.
    """

    def __init__(
        self,
        name: str,
        inputs: Any,
        check: Callable[[Any], None],
        outputs: Callable[[Any], Outputs],
        *,
        statistics: bool = False,
        size: Callable[[Any], int] = lambda inputs: 0,
        images: tuple[str, ...] = (),
        layouts: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        flops: tuple[Callable[..., int] | None, Callable[..., int] | None] = (None, None),
    ) -> None:
        hints = get_type_hints(inputs)
        self.name = name
        self.statistics = statistics
        self.tensors = sum(kind in (Tensor, Tensor | None) for kind in hints.values())
        self.settings = len(hints) - self.tensors
        assert len(hints) <= _INPUTS - 2, f"{name}: raise _INPUTS"
        self._unused = (None,) * (_INPUTS - 2 - len(hints))
        self.images, self.layouts = images, layouts or {}
        self._check, self._outputs, self._size = check, outputs, size
        self.forward_op = define(
            f'{name}({{inputs}}, str backend="{_DEFAULT}") -> '
            + ("(Tensor, Tensor)" if statistics else "Tensor"),
            self._forward,
            self._forward_fake,
            flops[0],
            inputs,
            tuple(self.layouts),
        )
        self.backward_op = define(
            f"{name}_backward(Tensor dy, {{inputs}}, {'Tensor stats, ' * statistics}str backend, "
            f"bool[] wanted) -> ({', '.join(['Tensor'] * self.tensors)})",
            self._backward,
            self._backward_fake,
            flops[1],
            inputs,
            tuple(self.layouts),
        )
        _OPS[name] = self

    def _kernel(self, direction: str, inputs: Any, backend: str) -> Callable[..., Any]:
        """The backend's kernels for these inputs; refused if the inputs or the backend are
        unsuitable."""
        self._check(inputs)
        x = inputs[0]
        module = backends.kernels(self.name, backend, x.device, x.dtype, self._size(inputs))
        kernel: Callable[..., Any] = getattr(module, f"{self.name}_{direction}")
        return kernel

    def _forward(self, inputs: Any, backend: str = _DEFAULT) -> Any:
        kernel = self._kernel("forward", inputs, backend)
        return kernel(inputs) if inputs[0].numel() else self._forward_fake(inputs)

    def _forward_fake(self, inputs: Any, backend: str = _DEFAULT) -> Any:
        made = [inputs[0].new_empty(shape, dtype=dtype) for shape, dtype in self._outputs(inputs)]
        return tuple(made) if self.statistics else made[0]

    def _backward(self, dy: Tensor, inputs: Any, *rest: Any) -> tuple[Tensor, ...]:
        *stats, backend, wanted = rest
        kernel = self._kernel("backward", inputs, backend)
        expected = self._outputs(inputs)
        for name, t, (shape, dtype) in zip(("dy", "stats"), (dy, *stats), expected, strict=False):
            is_shape(name, t, shape)
            same_dtype(dtype, (name,), (t,))
        tensors = inputs[: self.tensors]
        if inputs[0].numel():
            gradients = kernel(dy, inputs, *stats, wanted)
        else:
            gradients = [None if t is None else torch.zeros_like(t) for t in tensors]
        return only_wanted(tensors, gradients, wanted)

    def _backward_fake(self, dy: Tensor, inputs: Any, *rest: Any) -> tuple[Tensor, ...]:
        tensors = inputs[: self.tensors]
        made = [
            None if t is None else torch.empty_like(self.laid_out(name, t))
            for name, t in zip(inputs._fields, tensors, strict=False)
        ]
        return only_wanted(tensors, made, rest[-1])

    def laid_out(self, name: str, t: Tensor) -> Tensor:
        """The field of this name, or dy, in the layout the op needs."""
        return self.layouts[name](t) if name in self.layouts else t.contiguous()

    def __call__(self, inputs: Any, backend: Backend) -> Tensor:
        """y by a backend. The record contains the op's inputs, with any strides and images as (B,
        C, H, W)."""
        y: Tensor
        if (formula := backend.formulas.get(self.name)) is not None:
            y = formula(*inputs)
            return y
        tensors = inputs[: self.tensors]
        as_taken = []
        for name, t in zip(inputs._fields, tensors, strict=False):
            if t is not None and name in self.images:
                t = t.permute(0, 2, 3, 1)
            as_taken.append(None if t is None else self.laid_out(name, t))
        given = (self.name, backend.name, *as_taken, *inputs[self.tensors :], *self._unused)
        y = apply(_Fused, wants_grad(*tensors), *given)[0]
        return y.permute(0, 3, 1, 2) if self.images else y


@takes(_INPUTS)
class _Fused(torch.autograd.Function):
    """For all fused ops. Keeps the inputs, and any statistics: recomputing the rest is cheaper than
    reading it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, backend: str, *arguments: Any) -> tuple[Tensor, ...]:
        """Names of the op and the backend, and the op's inputs. Returns y and statistics."""
        op = _OPS[name]
        result: Any = op.forward_op(*arguments[: op.tensors + op.settings], backend)
        return result if op.statistics else (result,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.name, ctx.backend, *arguments = inputs
        op = _OPS[ctx.name]
        stats = output[1:]
        ctx.settings = arguments[op.tensors : op.tensors + op.settings]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*stats)
        ctx.save_for_backward(*arguments[: op.tensors], *stats)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        op = _OPS[ctx.name]
        wanted = ctx.needs_input_grad[2 : 2 + op.tensors]
        if dy is None or not any(wanted):
            return (None,) * _INPUTS
        saved = ctx.saved_tensors  # unpacked once: checkpointing refuses a second time
        tensors, stats = saved[: op.tensors], saved[op.tensors :]
        found = first_derivative(
            _gradients, ctx.name, dy, *tensors, *ctx.settings, *stats, ctx.backend, wanted
        )
        return (None, None, *spread(found, wanted), *(None,) * (_INPUTS - 2 - op.tensors))


def _gradients(name: str, dy: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """The wanted gradients of an op's tensors."""
    *arguments, wanted = given
    op = _OPS[name]
    gradients = op.backward_op(op.laid_out("dy", dy), *arguments, list(wanted))
    return picked(gradients, wanted)
