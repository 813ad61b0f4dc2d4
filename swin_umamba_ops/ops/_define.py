"""How an op is defined: its schema, kernels, fake, vmap rule and FLOP formula, all in one call.

The ops know nothing of autograd: an autograd.Function beside each calls it, and another op in its
backward pass. So whatever torch does with ops (compile, export, trace, count, override, batch) it
does with these, and whatever it does with Functions (torch.func, checkpoints, compiled autograd) it
does with those.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.jit import is_tracing  # type: ignore[attr-defined]

NAMESPACE = "swin_umamba"
LIB = torch.library.Library(NAMESPACE, "DEF")
# Compiled graphs hand over the strides they were traced with: contiguous ones.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)

_Function = TypeVar("_Function", bound=type[torch.autograd.Function])


def register_formula(op: Any, formula: Callable[..., int]) -> None:
    """Count an op's FLOPs by a formula, unless torch has one."""
    try:
        from torch.utils.flop_counter import flop_registry, register_flop_formula
    # torch imports Triton there, and one that is broken may raise anything: nothing can count then.
    except Exception:  # noqa: BLE001
        return
    if op not in flop_registry:
        register_flop_formula(op)(formula)


def define(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    flops: Callable[..., int] | None = None,
) -> Any:
    """Define an op of one schema, for all devices; its only overload.

    fake: makes results of the right shapes, dtypes and strides. flops: from the arguments' shapes.
    The first argument is a tensor, and all others must be where it is, for fakes too: a tensor
    without memory among others would otherwise make a result of nothing.
    """
    name = schema.split("(")[0]
    qualified = f"{NAMESPACE}::{name}"

    names = re.findall(r"[(,] *[\w?\[\]]+ (\w+)", schema)

    def check(args: tuple[Any, ...]) -> None:
        device = args[0].device
        for i, t in enumerate(args):
            if isinstance(t, Tensor) and t.device != device:
                raise ValueError(f"{names[i]} is on {t.device}, expected {device} like {names[0]}")

    def run(*args: Any) -> Any:
        check(args)
        if not torch.is_grad_enabled():  # as in every autograd.Function
            return kernel(*args)
        with torch.no_grad():
            return kernel(*args)

    def checked_fake(*args: Any) -> Any:
        check(args)
        return fake(*args)

    LIB.define(schema, tags=_TAGS)
    LIB.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, checked_fake, lib=LIB)
    packet = getattr(getattr(torch.ops, NAMESPACE), name)
    torch.library.register_vmap(qualified, _one_by_one(packet.default), lib=LIB)
    if flops is not None:
        register_formula(packet, flops)
    return packet.default


def _one_by_one(op: Any) -> Callable[..., Any]:
    """The vmap rule of an op: each sample by itself."""

    def rule(info: Any, in_dims: Any, *args: Any) -> Any:
        def sample(i: int) -> tuple[Any, ...]:
            return tuple(
                t.select(dim, i) if isinstance(t, Tensor) and dim is not None else t
                for t, dim in zip(args, in_dims, strict=True)
            )

        results = [op(*sample(i)) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


def bound_once(function: _Function) -> _Function:
    """An autograd.Function whose apply() finds its forward's signature ready: to inspect it at each
    call takes longer than a small kernel."""
    forward: Any = function.forward
    forward.__signature__ = inspect.signature(forward)
    return function


def apply(function: Any, *inputs: Any) -> Any:
    """function.apply(*inputs). A program that torch.jit traces has no gradients, and the op where
    it would have a call of Python."""
    return function.forward(*inputs) if is_tracing() else function.apply(*inputs)


@bound_once
class _FirstDerivative(torch.autograd.Function):
    """What a backward pass computes, whose own gradients raise."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Any], *inputs: Any) -> Any:
        return function(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(
            "second derivatives of swin_umamba's ops are not implemented; "
            "backend='reference' has them"
        )


def first_derivative(function: Callable[..., Any], *inputs: Any) -> Any:
    """function(*inputs) in a backward pass; where that is recorded itself, its gradients raise.

    Compiled programs have no second derivatives anyway, and torch says so.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _FirstDerivative.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return function(*inputs)


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd records what is done with these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def spread(gradients: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients in the places of the inputs that want one, None in the others."""
    found = iter(gradients)
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)


def empty(like: Tensor) -> Tensor:
    """What an op returns in place of a gradient that nobody wants."""
    return like.new_empty(0)
