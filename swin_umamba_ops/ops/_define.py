"""Define an op in one call: its schema, kernels, fake kernel, vmap rule and FLOP formula.

The ops have no autograd of their own: an autograd.Function beside each calls it, and another op in
its backward pass. So everything torch does with ops (compile, export, trace, count, override,
batch) works on these, and everything it does with Functions (torch.func, checkpoints, compiled
autograd) works on those.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar, get_type_hints

import torch
from torch import Tensor
from torch.jit import is_tracing  # type: ignore[attr-defined]

from swin_umamba_ops.backends._memory import addressable, is_addressable
from swin_umamba_ops.torch_private import transforms_active

NAMESPACE = "swin_umamba"
LIB = torch.library.Library(NAMESPACE, "DEF")
# Compiled graphs pass the strides they were traced with: contiguous ones.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)

_Function = TypeVar("_Function", bound=type[torch.autograd.Function])
_SCHEMA_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    bool: "bool",
    int: "int",
    float: "float",
    torch.dtype: "ScalarType",
}


def register_formula(op: Any, formula: Callable[..., int]) -> None:
    """Count an op's FLOPs by a formula, unless torch already has one."""
    try:
        from torch.utils.flop_counter import flop_registry, register_flop_formula
    # torch imports Triton there, and a broken one may raise anything: then nothing can be counted.
    except Exception:  # noqa: BLE001
        return
    if op not in flop_registry:
        register_flop_formula(op)(formula)


def define(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    flops: Callable[..., int] | None = None,
    inputs: Any = None,
    any_layout: tuple[str, ...] = (),
) -> Any:
    """Define an op with one schema, for all devices; its only overload.

    fake: creates results with the right shapes, dtypes and strides. flops: from the arguments'
    shapes.
    inputs: a record of swin_umamba_ops.inputs, which kernel and fake receive as one argument; its
    fields replace the schema's `{inputs}`.
    any_layout: arguments that the kernel accepts in any layout; all others are made contiguous,
    aligned and materialised (see backends/_memory.py), copied if needed.
    The first argument is a tensor, and all others must be on its device, also for fakes: otherwise
    a tensor without memory among the others would lead to a meaningless result.
    """
    first, end = 0, 0
    if inputs is not None:
        fields = [f"{_SCHEMA_TYPES[t]} {name}" for name, t in get_type_hints(inputs).items()]
        first = schema[: schema.index("{inputs}")].count(",")
        end = first + len(fields)
        schema = schema.replace("{inputs}", ", ".join(fields))
    name = schema.split("(")[0]
    qualified = f"{NAMESPACE}::{name}"
    arguments = re.findall(r"[(,] *([\w?\[\]]+) (\w+)", schema.split("->")[0])
    tensors = [
        (i, name, name in any_layout)
        for i, (kind, name) in enumerate(arguments)
        if kind.startswith("Tensor")
    ]

    def grouped(args: Sequence[Any]) -> Sequence[Any]:
        if inputs is None:
            return args
        return (*args[:first], inputs(*args[first:end]), *args[end:])

    def run(*args: Any) -> Any:
        device, copied = args[0].device, None
        for i, name, layout_free in tensors:
            t = args[i]
            if t is None:
                continue
            if t.device != device:
                raise ValueError(f"{name} is on {t.device}, expected {device}")
            if t.requires_grad and torch.is_grad_enabled():
                with torch.no_grad():  # as in every autograd.Function
                    return run(*args)
            if not (layout_free or is_addressable(t)):
                copied = copied or list(args)
                copied[i] = addressable(t)
        return kernel(*grouped(copied or args))

    def checked_fake(*args: Any) -> Any:
        device = args[0].device
        for i, name, _ in tensors:
            if args[i] is not None and args[i].device != device:
                raise ValueError(f"{name} is on {args[i].device}, expected {device}")
        return fake(*grouped(args))

    LIB.define(schema, tags=_TAGS)
    LIB.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, checked_fake, lib=LIB)
    packet = getattr(getattr(torch.ops, NAMESPACE), name)
    torch.library.register_vmap(qualified, _one_by_one(packet.default), lib=LIB)
    if flops is not None:
        register_formula(packet, flops)
    return packet.default


def _one_by_one(op: Any) -> Callable[..., Any]:
    """The vmap rule of an op: run each sample separately."""

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


class _Bound:
    """Arguments as bound by inspect."""

    __slots__ = ("args",)
    kwargs: ClassVar[dict[str, Any]] = {}

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args

    def apply_defaults(self) -> None:
        pass


class _Positional(inspect.Signature):
    """Signature of a function that gets all its arguments by position: nothing needs binding."""

    def bind(self, /, *args: Any, **_: Any) -> Any:
        return _Bound(args)


def takes(count: int) -> Callable[[_Function], _Function]:
    """An autograd.Function whose forward always gets the same number of positional arguments: its
    apply() would inspect and bind them at each call, which takes longer than a small kernel."""

    def mark(function: _Function) -> _Function:
        kind = inspect.Parameter.POSITIONAL_ONLY
        parameters = [inspect.Parameter(f"argument{i}", kind) for i in range(count)]
        forward: Any = function.forward
        forward.__signature__ = _Positional(parameters)
        return function

    return mark


def apply(function: Any, save: bool, *inputs: Any) -> Any:
    """function.apply(*inputs); only its forward if neither autograd (save) nor a transform nor
    forward-mode differentiation would notice, and in programs traced by torch.jit, which have no
    gradients and would otherwise contain a Python call instead of the op."""
    if is_tracing() or not (save or torch.compiler.is_compiling() or transforms_active()):
        return function.forward(*inputs)
    return function.apply(*inputs)


class _FirstDerivative(torch.autograd.Function):
    """The computation of a backward pass, whose own gradients raise."""

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
    """function(*inputs) in a backward pass; if that is itself recorded, its gradients raise.

    Compiled programs have no second derivatives anyway, and torch reports that.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _FirstDerivative.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return function(*inputs)


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd records operations on these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def spread(gradients: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients at the positions of the inputs that want one, None at the others."""
    found = iter(gradients)
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)


def picked(gradients: Iterable[Tensor], wanted: Iterable[bool]) -> tuple[Tensor, ...]:
    """The wanted gradients; `spread` puts them back in their positions."""
    return tuple([g for g, is_wanted in zip(gradients, wanted, strict=True) if is_wanted])


def only_wanted(
    inputs: Sequence[Tensor | None], gradients: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    """The outputs of an op: the gradients, with an empty tensor for each that is unwanted or whose
    input is absent."""
    first = inputs[0]
    assert first is not None
    return tuple(
        [
            g if g is not None and t is not None and is_wanted else first.new_empty(0)
            for g, t, is_wanted in zip(gradients, inputs, wanted, strict=True)
        ]
    )


def like_wanted(inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    """The outputs of a fake kernel, corresponding to `only_wanted`."""
    made = [
        None if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in inputs
    ]
    return only_wanted(inputs, made, wanted)
