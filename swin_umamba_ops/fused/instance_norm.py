"""Instance norm, residual and leaky ReLU in two passes over memory, channels last."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from swin_umamba_ops.fused._registration import define, kernels_serve, processors
from swin_umamba_ops.kept_kernels import launch

_TILE = 2048  # values a program holds at once
_MOST_DEEP = 128
_MOST_CHUNKS = 64  # a program adds up the sums of all chunks of its image
_PROGRAMS_PER_PROCESSOR = 8
NO_RESIDUAL, _PLAIN, _NORMALISED = 0, 1, 2


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    normalise_residual: bool = False,
    eps: float = 1e-5,
    slope: float = 1.0,
) -> Tensor:
    """leaky_relu(InstanceNorm(x) * weight + bias + residual, slope).

    x, residual: (B, C, H, W), of one floating dtype, fastest in channels_last; weight, bias: (C,),
    both or neither. normalise_residual: the residual goes through an instance norm without
    parameters of its own first. slope 1: no activation. The result is like x; sums are taken in
    float32 at least. As in PyTorch one position alone is an error: it has no variance.
    """
    _check(x, weight, bias, residual)
    if kernels_serve(x):
        kind = NO_RESIDUAL if residual is None else _NORMALISED if normalise_residual else _PLAIN
        y, _ = _instance_norm_act(
            _channels_last(x),
            weight,
            bias,
            None if residual is None else _channels_last(residual),
            kind,
            eps,
            slope,
        )
        out: Tensor = y.permute(0, 3, 1, 2)
        return out
    if x.shape[0] > 0:
        out = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    else:  # PyTorch's own does not take a weight of no images
        out = F.instance_norm(x, eps=eps)
        if weight is not None and bias is not None:
            out = out * weight[:, None, None] + bias[:, None, None]
    if residual is not None:
        out = out + (F.instance_norm(residual, eps=eps) if normalise_residual else residual)
    return out if slope == 1.0 else F.leaky_relu(out, slope)


def _check(x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, C, H, W)")
    if x.shape[2] * x.shape[3] <= 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected more than one position")
    if (weight is None) != (bias is None):
        raise ValueError("weight and bias: got one of them, expected both or neither")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != (x.shape[1],):
            raise ValueError(f"{name} has shape {tuple(t.shape)}, expected ({x.shape[1]},)")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"residual is {tuple(residual.shape)} of {residual.dtype}, expected "
            f"{tuple(x.shape)} of {x.dtype} like x"
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _in_rows(dy: Tensor) -> tuple[Tensor, int]:
    """dy (B, H, W, C) with its positions evenly apart, and how far.

    The gradient of one part of a concatenation is so as it is, and need not be copied.
    """
    _, H, W, _ = dy.shape
    stride = dy.stride(2)
    if dy.stride() == (H * W * stride, W * stride, stride, 1):
        return dy, stride
    return dy.contiguous(), dy.shape[3]


@functools.cache
def _kernels() -> Any:
    from swin_umamba_ops.fused import instance_norm_kernels

    return instance_norm_kernels


class _Cut:
    """How an op on x (B, H, W, C) is cut into programs, and the arguments that say so."""

    def __init__(self, x: Tensor) -> None:
        self.B, H, W, self.C = x.shape
        L = H * W
        deep = min(_MOST_DEEP, 1 << (self.C - 1).bit_length())
        rows = _TILE // deep
        blocks = -(-self.C // deep)
        wanted = -(-_PROGRAMS_PER_PROCESSOR * processors(x.device) // max(self.B * blocks, 1))
        most = max(1, min(_MOST_CHUNKS, wanted, -(-L // rows)))
        length = -(-L // most)
        self.chunks = -(-L // length)
        self.grid = (self.chunks, self.B, blocks)
        self.sizes = (L, self.C, self.chunks, length, self.B * self.chunks * self.C)
        self.tile = {"ROWS": rows, "DEEP": deep}
        # One number for all images: each would be a kernel of its own.
        self.whole = {**self.tile, "CHUNKS": _MOST_CHUNKS}

    def sums(self, x: Tensor, kinds: int) -> Tensor:
        return x.new_empty((kinds, self.B, self.chunks, self.C), dtype=torch.float32)


def normalise(x: Tensor, stats: Tensor, slope: float) -> Tensor:
    """leaky_relu(InstanceNorm(x), slope) of x (B, H, W, C) once more, from its statistics."""
    y = torch.empty_like(x)
    if x.numel():
        cut = _Cut(x)
        launch(
            _kernels().apply, cut.grid,
            (x, stats, None, None, None, stats, y, stats, *cut.sizes, 0.0, slope),
            {"AFFINE": False, "RESIDUAL": NO_RESIDUAL, "KNOWN": True, **cut.whole},
        )  # fmt: skip
    return y


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor]:
    y, stats = _forward_fake(x, weight, bias, residual, kind, eps, slope)
    if x.numel() == 0:
        return y, stats
    cut, kernels = _Cut(x), _kernels()
    sums = cut.sums(x, 2)
    launch(kernels.moments, cut.grid, (x, sums, *cut.sizes), cut.tile)
    residual_sums = sums
    if kind == _NORMALISED:
        residual_sums = cut.sums(x, 2)
        launch(kernels.moments, cut.grid, (residual, residual_sums, *cut.sizes), cut.tile)
    launch(
        kernels.apply, cut.grid,
        (x, sums, weight, bias, residual, residual_sums, y, stats, *cut.sizes, eps, slope),
        {"AFFINE": weight is not None, "RESIDUAL": kind, "KNOWN": False, **cut.whole},
    )  # fmt: skip
    return y, stats


def _forward_fake(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor]:
    rows = 4 if kind == _NORMALISED else 2
    stats = x.new_empty((rows, x.shape[0], x.shape[3]), dtype=torch.float32)
    return torch.empty_like(x), stats


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    stats: Tensor,
    kind: int,
    slope: float,
    dx: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx: where to write it, if there is a place already. That may be dy, if it is contiguous: each
    value is read before it is written, and by the same program."""
    dx = torch.empty_like(x) if dx is None else dx
    dweight, dbias, dresidual = _beside_dx(x, weight, bias, residual)
    if x.numel() == 0:
        return dx, dweight.zero_(), dbias.zero_(), dresidual
    dy, dy_stride = _in_rows(dy)
    cut, kernels = _Cut(x), _kernels()
    sums = cut.sums(x, 3)
    options = {"AFFINE": weight is not None, "RESIDUAL": kind}
    launch(
        kernels.gradient_sums, cut.grid,
        (dy, dy_stride, x, weight, bias, residual, stats, sums, *cut.sizes, slope),
        {**options, **cut.tile},
    )  # fmt: skip
    launch(
        kernels.gradient, cut.grid,
        (dy, dy_stride, x, weight, bias, residual, stats, sums, dx, dresidual, *cut.sizes, slope),
        {**options, **cut.whole},
    )  # fmt: skip
    if weight is not None and bias is not None:
        total = sums[:2].sum((1, 2))
        dbias, dweight = total[0].to(bias.dtype).clone(), total[1].to(weight.dtype).clone()
    return dx, dweight, dbias, dresidual


def norm_act_gradient_in_place(dy: Tensor, x: Tensor, stats: Tensor, slope: float) -> Tensor:
    """The gradient of leaky_relu(InstanceNorm(x), slope) by x (B, H, W, C), in the place of dy,
    which is contiguous."""
    return _backward(dy, x, None, None, None, stats, NO_RESIDUAL, slope, dx=dy)[0]


def _beside_dx(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    dweight, dbias, dresidual = (
        x.new_empty(0) if t is None else torch.empty_like(t) for t in (weight, bias, residual)
    )
    return dweight, dbias, dresidual


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    stats: Tensor,
    kind: int,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (torch.empty_like(x), *_beside_dx(x, weight, bias, residual))


class _InstanceNormAct(torch.autograd.Function):
    """Keeps the inputs and their statistics; the activation's sign is made again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, stats = _instance_norm_act(*inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(stats)
        ctx.save_for_backward(*inputs[:4], stats)
        ctx.kind, ctx.slope = inputs[4], inputs[6]
        return y, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 7
        x, weight, bias, residual, stats = ctx.saved_tensors
        dx, dweight, dbias, dresidual = _instance_norm_act_backward(
            dy, x, weight, bias, residual, stats, ctx.kind, ctx.slope
        )
        given = [None if t is None else d for t, d in ((weight, dweight), (bias, dbias))]
        return (dx, *given, None if residual is None else dresidual, None, None, None)


_instance_norm_act = define(
    "instance_norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, int kind, "
    "float eps, float slope) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    _InstanceNormAct,
)
_instance_norm_act_backward = define(
    "instance_norm_act_backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, "
    "Tensor? residual, Tensor stats, int kind, float slope) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
