"""The sums that soft Dice and cross-entropy are made of: their ops, and autograd around them.

logits: (B, C, H, W), C at least 2, contiguous or channels last; target: (B, H, W) int64,
contiguous, classes or -1. Sums: (B, 2 * C) float32, see `swin_umamba_ops.segmentation_sums`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.backends._memory import addressable
from swin_umamba_ops.ops._check import has_shape, same_dtype
from swin_umamba_ops.ops._define import apply, define, first_derivative, takes, wants_grad


def _kernels(backend: str, logits: Tensor, target: Tensor) -> Any:
    has_shape("logits", logits, "B", "C", "H", "W")
    B, C, H, W = logits.shape
    if C < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected two classes or more")
    has_shape("target", target, B, H, W)
    same_dtype(torch.int64, ("target",), (target,))
    return backends.kernels("segmentation_sums", backend, logits.device, logits.dtype, C)


def _lying(logits: Tensor) -> Tensor:
    """The logits as kernels read them: contiguous or channels last, with their values in memory."""
    last = logits.is_contiguous(memory_format=torch.channels_last)
    if (logits.is_contiguous() or last) and not logits.is_neg():
        return logits
    return addressable(logits)


def _forward(logits: Tensor, target: Tensor, backend: str = "triton") -> Tensor:
    kernels = _kernels(backend, logits, target)
    if logits.numel() == 0:
        return logits.new_zeros((0, 2 * logits.shape[1]), dtype=torch.float32)
    sums: Tensor = kernels.forward(_lying(logits), target)
    return sums


def _forward_fake(logits: Tensor, target: Tensor, backend: str = "triton") -> Tensor:
    return logits.new_empty((logits.shape[0], 2 * logits.shape[1]), dtype=torch.float32)


def _backward(dsums: Tensor, logits: Tensor, target: Tensor, backend: str = "triton") -> Tensor:
    kernels = _kernels(backend, logits, target)
    has_shape("dsums", dsums, logits.shape[0], 2 * logits.shape[1])
    same_dtype(torch.float32, ("dsums",), (dsums,))
    if logits.numel() == 0:
        return torch.empty_like(logits)
    dlogits: Tensor = kernels.backward(dsums, _lying(logits), target)
    return dlogits


def _backward_fake(
    dsums: Tensor, logits: Tensor, target: Tensor, backend: str = "triton"
) -> Tensor:
    return torch.empty_like(_lying(logits))


segmentation_sums_op = define(
    'segmentation_sums(Tensor logits, Tensor target, str backend="triton") -> Tensor',
    _forward,
    _forward_fake,
    any_layout=("logits",),
)
segmentation_sums_backward_op = define(
    "segmentation_sums_backward(Tensor dsums, Tensor logits, Tensor target, "
    'str backend="triton") -> Tensor',
    _backward,
    _backward_fake,
    any_layout=("logits",),
)


@takes(3)
class _SegmentationSums(torch.autograd.Function):
    """Keeps the logits alone: their probabilities are recomputed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, backend: str) -> Tensor:
        sums: Tensor = segmentation_sums_op(logits, target, backend)
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, ctx.backend = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    def backward(ctx: Any, dsums: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        dlogits = first_derivative(_gradient, dsums, *ctx.saved_tensors, ctx.backend)
        return dlogits, None, None


def _gradient(dsums: Tensor, logits: Tensor, target: Tensor, backend: str) -> Tensor:
    found: Tensor = segmentation_sums_backward_op(dsums.contiguous(), logits, target, backend)
    return found


def segmentation_sums(logits: Tensor, target: Tensor, backend: Backend) -> Tensor:
    """The sums of logits and their target by a backend."""
    sums: Tensor
    if (formula := backend.formulas.get("segmentation_sums")) is not None:
        sums = formula(logits, target)
        return sums
    logits, target = _lying(logits), target.contiguous()
    sums = apply(_SegmentationSums, wants_grad(logits), logits, target, backend.name)
    return sums
