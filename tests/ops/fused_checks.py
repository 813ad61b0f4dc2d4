"""The fused ops by the backend under test, and what holds their kernels to float64.

Under TRITON_INTERPRET=1 the kernels run on the CPU; without it and without a GPU, a test starts
them in a process of their own, since Triton reads the variable when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor

import swin_umamba_ops as ops

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# Where a GPU is, `-m gpu` selects these tests too.
needs_kernels = (
    pytest.mark.gpu
    if DEVICE == "cuda"
    else pytest.mark.skipif(not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")
)
FLOOR = 1e-6
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)
Op = Callable[..., Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(value: Tensor, truth: Tensor) -> float:
    difference = torch.linalg.vector_norm(value.detach().cpu().double() - truth)
    norm = torch.linalg.vector_norm(truth)
    return float(difference / norm if norm > 0 else difference)


def with_gradients(op: Op, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = op(*leaves)
    dy = noise(*y.shape, seed=9).to(y.device, torch.float16).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


BACKEND = {"name": "pytorch"}  # of the ops below


def _by_backend(function: Op) -> Op:
    @wraps(function)
    def call(*inputs: Any, **options: Any) -> Tensor:
        return function(*inputs, **options, backend=BACKEND["name"])

    return call


layer_norm = _by_backend(ops.layer_norm)
depthwise_conv_silu = _by_backend(ops.depthwise_conv_silu)
instance_norm_act = _by_backend(ops.instance_norm_act)
conv3x3 = _by_backend(ops.conv3x3)
norm_act_conv3x3 = _by_backend(ops.norm_act_conv3x3)
mlp_gelu = _by_backend(ops.mlp_gelu)


def check(op: Op, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels against float64, held to twice the error of PyTorch's operators."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    tensors = list(inputs.values())
    on_device = [t.to(DEVICE) for t in tensors]
    truth = with_gradients(op, [t.double() for t in tensors])
    eager = with_gradients(op, tensors)
    use_kernels(monkeypatch)
    found = with_gradients(op, on_device)
    # On the CPU PyTorch's transposed convolution may round its sums to 16 bits.
    coarsest = max(torch.finfo(t.dtype).eps for t in tensors)
    floor = FLOOR if DEVICE == "cuda" else FLOOR + coarsest
    for name, value, right, rounded in zip(["y", *inputs], found, truth, eager, strict=True):
        assert value.shape == right.shape
        assert error(value, right) <= 2 * error(rounded, right) + floor, name


def use_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKEND, "name", "triton")


def rounded(dtype: torch.dtype, **tensors: Tensor) -> dict[str, Tensor]:
    """Activations in dtype, and parameters, which are vectors or filters, in float32."""
    return {
        name: t.to(torch.float32 if name.startswith(("weight", "bias")) else dtype)
        for name, t in tensors.items()
    }
