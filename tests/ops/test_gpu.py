"""What only concerns GPUs: streams, other devices, graphs, synchronization, 64-bit offsets."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cases import SS2DCase, Target, Tensors, cast_ss2d, make_ss2d, noise_like, with_gradients
from torch import Tensor

import swin_umamba_ops as ops

CASE = SS2DCase(2, 40, 21, 19, 8, 3)


def _expected(target: Target) -> tuple[Tensors, Tensor, Tensors]:
    """Inputs on the default device, a gradient, and what they give there."""
    inputs = cast_ss2d(make_ss2d(CASE), torch.float32, target.device)
    gradient = noise_like(inputs["x"]).to(target.device)
    run = partial(ops.ss2d, backend=target.backend)
    return inputs, gradient, with_gradients(run, inputs, gradient)


def _assert_equal(actual: Tensors, expected: Tensors) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name].to(value.device), value)


def test_runs_on_the_current_stream(gpu_target: Target) -> None:
    inputs, gradient, expected = _expected(gpu_target)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # Keeps the stream busy: work put on another one would overtake the change of x.
        torch.cuda._sleep(50_000_000)
        late = {name: t + 0 for name, t in inputs.items()}
        actual = with_gradients(partial(ops.ss2d, backend=gpu_target.backend), late, gradient)
    stream.synchronize()
    _assert_equal(actual, expected)


def test_runs_on_a_device_that_is_not_the_current_one(gpu_target: Target) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    inputs, gradient, expected = _expected(gpu_target)
    moved = {name: t.to("cuda:1") for name, t in inputs.items()}
    run = partial(ops.ss2d, backend=gpu_target.backend)
    with torch.cuda.device(0):
        actual = with_gradients(run, moved, gradient)
    assert all(t.device == torch.device("cuda:1") for t in actual.values())
    _assert_equal(actual, expected)


def test_never_waits_for_the_device(gpu_target: Target) -> None:
    inputs, gradient, _ = _expected(gpu_target)
    run = partial(ops.ss2d, backend=gpu_target.backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with_gradients(run, inputs, gradient)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_replays_in_a_cuda_graph(gpu_target: Target) -> None:
    inputs, gradient, expected = _expected(gpu_target)
    static = {name: torch.zeros_like(t).requires_grad_() for name, t in inputs.items()}
    leaves = list(static.values())

    def run() -> list[Tensor]:
        y = ops.ss2d(*leaves, backend=gpu_target.backend)
        return [y, *torch.autograd.grad(y, leaves, gradient)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    with torch.no_grad():
        for name, t in static.items():
            t.copy_(inputs[name])
    graph.replay()
    torch.cuda.synchronize()
    _assert_equal(dict(zip(expected, captured, strict=True)), expected)


@pytest.mark.slow
def test_offsets_beyond_32_bits(gpu_target: Target) -> None:
    """More than 2**31 elements: the last image must come out as it does alone."""
    case = SS2DCase(1, 1024, 6, 6, 1, 2)
    batch = 2**31 // (case.D * case.H * case.W) + 2
    # All but the CUDA kernels hold every direction's dt and its gradient, 32 GiB each.
    needed = 60 if gpu_target.backend == "cuda" else 120
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < needed * 2**30:
        pytest.skip(f"needs {needed} GiB of free GPU memory")
    alone = cast_ss2d(make_ss2d(case), torch.bfloat16, "cuda")
    x = torch.zeros(batch, case.H, case.W, case.D, dtype=torch.bfloat16, device="cuda").permute(
        0, 3, 1, 2
    )
    x[-1] = alone["x"][0]
    gradient = noise_like(alone["x"]).to("cuda")
    expected = with_gradients(partial(ops.ss2d, backend=gpu_target.backend), alone, gradient)

    leaves = [x.requires_grad_(), *(t.requires_grad_() for t in list(alone.values())[1:])]
    y = ops.ss2d(*leaves, backend=gpu_target.backend)
    torch.testing.assert_close(y[-1:], expected["out"])
    # Zero gradient and zero x of all other images leave the parameters' gradients as they were.
    (y[-1:] * gradient).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[-1:], expected["dx"])
    assert not x.grad[:-1].any()
    for name, leaf in zip(list(alone)[1:], leaves[1:], strict=True):
        torch.testing.assert_close(leaf.grad, expected[f"d{name}"], rtol=1e-3, atol=1e-3)
