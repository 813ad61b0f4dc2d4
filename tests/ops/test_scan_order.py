"""The four visiting orders, written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import swin_umamba_ops as ops
from swin_umamba_ops.scan_order import step_of_position, visiting_order

sizes = st.integers(1, 9)


def test_orders_of_a_two_by_three_image() -> None:
    assert visiting_order(2, 3).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


@given(sizes, sizes)
def test_steps_invert_the_orders(height: int, width: int) -> None:
    order, step = visiting_order(height, width), step_of_position(height, width)
    steps = torch.arange(height * width).expand(4, -1)
    assert torch.equal(step.gather(1, order), steps)
    assert torch.equal(order.gather(1, step), steps)


@given(sizes, sizes)
def test_cross_scan_visits_in_order(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    expected = [x.flatten(2)[:, :, order] for order in visiting_order(height, width)]
    assert torch.equal(ops.cross_scan(x), torch.stack(expected, 1))


@given(sizes, sizes)
def test_cross_merge_is_the_transpose_of_cross_scan(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ys = torch.randn(2, 4, 3, height, width, dtype=torch.float64)
    merged = ops.cross_merge(ys)
    assert merged.shape == (2, 3, height * width)
    ops.cross_scan(x).backward(ys.flatten(3))
    assert x.grad is not None
    torch.testing.assert_close(merged, x.grad.flatten(2))


def test_scan_then_merge_gives_four_times_the_image() -> None:
    x = torch.randn(2, 3, 4, 5)
    merged = ops.cross_merge(ops.cross_scan(x).unflatten(-1, (4, 5)))
    torch.testing.assert_close(merged, 4 * x.flatten(2))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 3, 4, 5)])
def test_cross_scan_refuses_other_ranks(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x has shape .* expected \(B, D, H, W\)"):
        ops.cross_scan(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 3, 2, 5, 6)])
def test_cross_merge_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ys has shape .* expected \(B, 4, D, H, W\)"):
        ops.cross_merge(torch.zeros(shape))
