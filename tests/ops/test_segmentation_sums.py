"""The sums of soft Dice and cross-entropy: their Triton kernels against float64, and as ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fused_checks import (
    BACKEND,
    DEVICE,
    DTYPES,
    INTERPRETED,
    check,
    error,
    needs_kernels,
    noise,
    use_kernels,
    with_gradients,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

import swin_umamba_ops as ops
from swin_umamba_ops.backends import triton_segmentation
from swin_umamba_ops.ops.segmentation_sums import segmentation_sums as op

SHAPES = pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7), (1, 2, 1, 1), (3, 14, 33, 20), (2, 40, 9, 8), (1, 2, 1, 70)], ids=str
)


def _target(shape: tuple[int, ...], seed: int = 5) -> Tensor:
    """Classes, and -1 in places."""
    B, C, H, W = shape
    return torch.randint(-1, C, (B, H, W), generator=torch.Generator().manual_seed(seed))


def _sums(logits: Tensor, target: Tensor) -> Tensor:
    return ops.segmentation_sums(logits, target.to(logits.device), backend=BACKEND["name"])


def test_sums_by_hand() -> None:
    """Two pixels: probabilities 0.5, 0.25, 0.25, and 0.2, 0.2, 0.6; then one without truth."""
    p = torch.tensor([[0.5, 0.2, 1.0], [0.25, 0.2, 1.0], [0.25, 0.6, 1.0]], dtype=torch.float64)
    target = torch.tensor([[[1, 2, -1]]])
    (found,) = ops.segmentation_sums(p.log().view(1, 3, 1, 3), target)
    entropy = float(-torch.tensor([0.25, 0.6], dtype=torch.float64).log().sum())
    expected = [entropy, 2, 0.25, 0.6, 0.25 + 0.2 + 1, 0.25 + 0.6 + 1]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_gradients_by_differences() -> None:
    target = _target((2, 3, 2, 4))
    logits = noise(2, 3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.segmentation_sums(x, target), logits)


@needs_kernels
@DTYPES
@SHAPES
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_kernels_are_as_exact_as_pytorch(
    last: bool, shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter cuts bfloat16 where GPUs round")
    layout = torch.channels_last if last else torch.contiguous_format
    logits = (4 * noise(*shape)).to(dtype).contiguous(memory_format=layout)
    check(lambda x: _sums(x, _target(shape)), {"x": logits}, monkeypatch)


@needs_kernels
def test_large_logits_and_any_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 4, 6, 10)
    logits = (1e4 * noise(*shape)).float()
    truth = with_gradients(lambda x: _sums(x, _target(shape)), [logits.double()])
    use_kernels(monkeypatch)
    for x in (
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        logits[:, :, :, ::2].repeat_interleave(2, 3),
        torch._neg_view(-logits),
    ):
        on_device = x.to(DEVICE)
        if torch.equal(x, logits):
            found = with_gradients(lambda x: _sums(x, _target(shape)), [on_device])
            for value, right in zip(found, truth, strict=True):
                assert error(value, right) < 1e-5
        assert _sums(on_device, _target(shape)).isfinite().all()


@needs_kernels
def test_whatever_is_no_class_makes_the_loss_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(monkeypatch)
    for wrong in (3, -2):
        target = torch.zeros((1, 2, 2), dtype=torch.int64)
        target[0, 1, 0] = wrong
        sums = _sums(torch.zeros(1, 3, 2, 2, device=DEVICE), target)
        assert sums[0, 0].isnan()
        assert sums[0, 1:].isfinite().all()
    spoilt = torch.zeros(1, 3, 2, 2, device=DEVICE)
    spoilt[0, 2, 1, 1] = torch.nan
    assert _sums(spoilt, torch.zeros((1, 2, 2), dtype=torch.int64))[0, 0].isnan()


@needs_kernels
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_ops_pass_opcheck_and_their_fakes_lie_as_results_do(last: bool) -> None:
    shape = (2, 3, 5, 4)
    layout = torch.channels_last if last else torch.contiguous_format
    logits = noise(*shape).to(DEVICE, torch.float32).contiguous(memory_format=layout)
    target, dsums = _target(shape).to(DEVICE), torch.ones(2, 6, device=DEVICE)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (op.forward_op, (logits, target)),
        (op.backward_op, (dsums, logits, target, "triton", [True, False])),
    ]
    for function, arguments in calls:
        torch.library.opcheck(function, arguments)
        real = pytree.tree_leaves(function(*arguments))[0]
        with FakeTensorMode() as mode:
            given = pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
            fake = pytree.tree_leaves(function(*given))[0]
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
    for wrong in ((logits[:, :1], target), (logits, target[:, :2]), (logits, target.int())):
        with pytest.raises((ValueError, TypeError), match=r"logits has shape|target has"):
            op.forward_op(*wrong)


@needs_kernels
def test_second_derivatives_raise_and_empty_batches_are_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_kernels(monkeypatch)
    logits = noise(1, 3, 2, 2).to(DEVICE, torch.float32).requires_grad_()
    sums = _sums(logits, _target((1, 3, 2, 2)))
    (dlogits,) = torch.autograd.grad(sums.square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        dlogits.sum().backward()
    empty = logits.detach()[:0].requires_grad_()
    assert _sums(empty, _target((0, 3, 2, 2))).shape == (0, 6)
    _sums(empty, _target((0, 3, 2, 2))).sum().backward()


def test_many_classes_are_not_the_kernels_business() -> None:
    reason = triton_segmentation.why_unsupported(torch.device("cuda"), torch.float32, 257)
    assert reason == "it supports up to 256 classes, not 257"


@pytest.mark.parametrize(
    ("logits", "target", "words"),
    [
        ((1, 1, 2, 2), torch.zeros(1, 2, 2).long(), "logits has shape"),
        ((1, 2, 2), torch.zeros(1, 2, 2).long(), "logits has shape"),
        ((1, 2, 2, 2), torch.zeros(1, 2, 3).long(), "target has shape"),
        ((1, 2, 2, 2), torch.zeros(1, 2, 2), "target has dtype"),
    ],
)
def test_what_does_not_fit_is_named(logits: tuple[int, ...], target: Tensor, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        ops.segmentation_sums(torch.zeros(logits), target)
