"""Dice and binary cross-entropy of regions that overlap."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from swin_umamba.losses import DeepSupervisionLoss, dice_binary_cross_entropy, resize_nearest

REGIONS = ((1, 2, 3), (2, 3), (3,))


def _inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 9, 10, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 4, (2, 9, 10), generator=generator)


def _nnunet(logits: Tensor, target: Tensor, batch_dice: bool) -> Tensor:
    """nnU-Net's DC_and_BCE_loss with `do_bg` and smooth 1e-5, without an ignore label."""
    truth = torch.stack([torch.isin(target, torch.tensor(r)) for r in REGIONS], 1).double()
    over = (0, 2, 3) if batch_dice else (2, 3)
    p = logits.sigmoid()
    dice = (2 * (p * truth).sum(over) + 1e-5) / (p.sum(over) + truth.sum(over) + 1e-5)
    return F.binary_cross_entropy_with_logits(logits, truth) - dice.mean()


@pytest.mark.parametrize("batch_dice", [True, False])
def test_is_nnunets_loss(batch_dice: bool) -> None:
    logits, target = _inputs()
    ours, theirs = (x.clone().requires_grad_() for x in (logits, logits))
    loss = dice_binary_cross_entropy(ours, target, REGIONS, batch_dice)
    expected = _nnunet(theirs, target, batch_dice)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_ignored_pixels_are_as_if_cut_off(batch_dice: bool) -> None:
    logits, target = _inputs()
    target[..., 6:] = -1
    logits.requires_grad_()
    loss = dice_binary_cross_entropy(logits, target, REGIONS, batch_dice)
    loss.backward()
    expected = _nnunet(logits.detach()[..., :6], target[..., :6], batch_dice)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert logits.grad is not None
    assert logits.grad[..., 6:].abs().max() == 0


def test_without_any_truth_there_is_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = dice_binary_cross_entropy(logits, torch.full((1, 4, 4), -1), REGIONS)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_scales_are_weighted_and_half_logits_taken_to_float32() -> None:
    logits, target = _inputs()
    outputs = [logits.half(), logits[..., ::2, ::2].half()]
    loss = DeepSupervisionLoss((0.75, 0.25), regions=REGIONS)(outputs, target)
    each = [
        dice_binary_cross_entropy(out.float(), resize_nearest(target, out.shape[-2:]), REGIONS)
        for out in outputs
    ]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((0.75 * each[0] + 0.25 * each[1]).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: DeepSupervisionLoss((1.0,), regions=()), "regions: got none"),
        (lambda: DeepSupervisionLoss((1.0,), regions=((1,), ())), r"regions: got \(\)"),
        (
            lambda: dice_binary_cross_entropy(
                torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long(), REGIONS
            ),
            r"logits: got shape \(1, 2, 4, 4\), expected \(B, 3, H, W\)",
        ),
    ],
)
def test_bad_input_is_named(call: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        call()
