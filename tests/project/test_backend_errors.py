"""A named backend that cannot run here says why, and nothing runs in its place."""

from __future__ import annotations

import pytest
import torch

import swin_umamba_ops as ops
from swin_umamba_ops.backends import _extension

SHAPES = ((4, 6, 4), (4, 4, 2), (4, 4), (16, 2), (16,))


def _run(backend: str) -> torch.Tensor:
    x, *rest = (torch.randn(shape) for shape in ((1, 4, 3, 5), *SHAPES))
    return ops.ss2d(x, *rest, backend=backend)


def test_cuda_on_cpu_tensors_says_why_not() -> None:
    reason = ops.available_backends()["cuda"] or "it supports CUDA tensors, not cpu"
    with pytest.raises(RuntimeError, match="backend 'cuda' does not support cpu") as caught:
        _run("cuda")
    assert reason in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_compiled_cuda_kernels_are_unusable_and_say_so() -> None:
    module, _ = _extension.load()
    if module is None or not hasattr(module, "cuda"):
        pytest.skip("built without the CUDA kernels")
    assert ops.available_backends()["cuda"] == "torch finds no CUDA device"
    assert module.build_info()["cuda"]
