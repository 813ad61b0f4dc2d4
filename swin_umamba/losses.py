"""The training losses: soft Dice and (binary) cross-entropy over the logits of all scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import swin_umamba_ops as ops

Regions = Sequence[Sequence[int]]
"""The class indices that make up each region."""

WEIGHTS = (4 / 7, 2 / 7, 1 / 7, 0.0)
SMOOTH = 1e-5
IGNORED = -1  # target value of unannotated pixels


def scale_weights(scales: int) -> tuple[float, ...]:
    """nnU-Net's weights for a number of scales: 1, 1/2, 1/4, ..., the last 0, normalized to sum 1.

    A single scale has weight 1.
    """
    if scales < 1:
        raise ValueError(f"scales: got {scales}, expected at least 1")
    if scales == 1:
        return (1.0,)
    halves = [0.5**i for i in range(scales - 1)]
    return (*(half / sum(halves) for half in halves), 0.0)


class DeepSupervisionLoss(nn.Module):
    """Weighted Dice + cross-entropy at every scale, as in the original implementation.

    weights: one per output, finest first. An output with weight 0 is not evaluated but stays in the
    graph with zero gradients, so that its head trains under DDP. batch_dice: compute Dice per class
    over the whole batch rather than per image. across_ranks: treat the batches of all processes of
    torch.distributed's default group as one; each process gets the loss of the whole, and DDP's
    mean of the gradients is that loss's gradient. regions: train one sigmoid output per region, see
    `dice_binary_cross_entropy`, instead of a softmax over classes.

    outputs: list of logits (B, C, h, w), finest first, or only the finest, whose weight is then 1;
    C is the number of classes or regions. targets: class indices (B, H, W) or (B, 1, H, W) of any
    integer dtype, resized to each output by nearest neighbor; or a list with one per output, at
    its size. -1 is ignored. 16-bit logits are converted to float32. Returns a scalar.
    """

    def __init__(
        self,
        weights: Sequence[float] = WEIGHTS,
        batch_dice: bool = True,
        *,
        across_ranks: bool = False,
        regions: Regions | None = None,
    ) -> None:
        super().__init__()
        if not weights or min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"weights: got {tuple(weights)}, expected some above 0, none below")
        if regions is not None:
            _check_regions(regions)
        self.weights = tuple(weights)
        self.batch_dice = batch_dice
        self.across_ranks = across_ranks
        self.regions = regions

    def forward(
        self, outputs: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor
    ) -> Tensor:
        weights = self.weights
        if isinstance(outputs, Tensor):
            outputs, weights = [outputs], (1.0,)
        if len(outputs) != len(weights):
            raise ValueError(f"outputs: got {len(outputs)}, expected {len(weights)} as in weights")
        if isinstance(targets, Tensor):
            targets = [resize_nearest(targets, out.shape[-2:]) for out in outputs]
        if len(targets) != len(outputs):
            raise ValueError(f"targets: got {len(targets)}, expected one per output or one for all")

        loss = outputs[0].new_zeros((), dtype=_accurate(outputs[0].dtype))
        for weight, logits, target in zip(weights, outputs, targets, strict=True):
            if weight > 0:
                loss = loss + weight * self._at_one_scale(logits, target)
            else:
                # An empty sum: 0 whatever the logits are, whereas 0 * NaN would be NaN.
                loss = loss + logits.reshape(-1)[:0].sum()
        return loss

    def _at_one_scale(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.regions is None:
            return dice_cross_entropy(
                logits, target, self.batch_dice, across_ranks=self.across_ranks
            )
        return dice_binary_cross_entropy(
            logits, target, self.regions, self.batch_dice, across_ranks=self.across_ranks
        )


def dice_cross_entropy(
    logits: Tensor, target: Tensor, batch_dice: bool = True, *, across_ranks: bool = False
) -> Tensor:
    """Cross-entropy minus soft Dice, smoothed by 1e-5 and without the background.

    logits: (B, C, H, W), C at least 2. target: (B, H, W) or (B, 1, H, W), integers below C; -1
    where unannotated, which both terms ignore. If nothing is annotated the cross-entropy is 0.
    across_ranks: as in DeepSupervisionLoss.
    """
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected (B, C > 1, H, W)")
    sums = ops.segmentation_sums(logits, _fitting(target, logits))
    return _minus_dice(sums, batch_dice, across_ranks=across_ranks)


def dice_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    regions: Regions,
    batch_dice: bool = True,
    *,
    across_ranks: bool = False,
) -> Tensor:
    """Binary cross-entropy minus soft Dice of regions that may overlap, as nnU-Net trains them.

    logits: (B, R, H, W), one sigmoid output per region. target: (B, H, W) or (B, 1, H, W) class
    indices; a pixel belongs to every region that contains its class. -1 where unannotated, which
    both terms ignore. The cross-entropy is the mean over annotated pixels and regions (nnU-Net: a
    sum over regions if the dataset has an ignore label), 0 if nothing is annotated. Dice is
    smoothed by 1e-5. across_ranks: as in DeepSupervisionLoss.
    """
    _check_regions(regions)
    if logits.ndim != 4 or logits.shape[1] != len(regions):
        raise ValueError(
            f"logits: got shape {tuple(logits.shape)}, expected (B, {len(regions)}, H, W), one"
            " output per region"
        )
    target = _fitting(target, logits)
    known = (target != IGNORED)[:, None]
    # Compare with plain numbers, since a CUDA graph cannot copy a table from the host.
    truth = torch.stack(
        [reduce(torch.logical_or, (target == index for index in region)) for region in regions], 1
    )
    logits = logits.to(_accurate(logits.dtype))
    each = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    over = (1, 2, 3)
    cross_entropy = torch.where(known, each, 0).sum(over)
    pixels = (known.sum(over) * len(regions)).to(logits.dtype)
    probabilities = logits.sigmoid()
    overlap = torch.where(truth, probabilities, 0).sum((2, 3))
    both = torch.where(known, probabilities, 0).sum((2, 3)) + truth.sum((2, 3))
    sums = torch.cat((torch.stack((cross_entropy, pixels), 1), overlap, both), 1)
    return _minus_dice(sums, batch_dice, across_ranks=across_ranks)


def _minus_dice(sums: Tensor, batch_dice: bool, *, across_ranks: bool) -> Tensor:
    """The mean cross-entropy minus the mean soft Dice.

    sums: of each image, the cross-entropy, the number of values that it is of, and of each class or
    region the overlap, then the total of probabilities and truth: (B, 2 + 2 * classes).
    """
    if batch_dice:
        sums = sums.sum(0)
        if across_ranks:
            sums = _sum_over_ranks(sums)
        overlap, total = sums[2:].chunk(2)
        dice = ((2 * overlap + SMOOTH) / (total + SMOOTH)).mean()
    else:
        overlap, total = sums[:, 2:].chunk(2, 1)
        each = (2 * overlap + SMOOTH) / (total + SMOOTH)
        means = torch.stack((each.sum(), each.new_full((), each.numel())))
        sums = torch.cat((sums[:, :2].sum(0), means))
        if across_ranks:
            sums = _sum_over_ranks(sums)
        dice = sums[2] / sums[3]
    loss: Tensor = sums[0] / sums[1].clamp(min=1) - dice
    return loss


def _check_regions(regions: Regions) -> None:
    for region in regions:
        if not region or min(region) < 0:
            raise ValueError(f"regions: got {tuple(region)}, expected class indices of 0 and above")
    if not regions:
        raise ValueError("regions: got none, expected at least one")


def _fitting(target: Tensor, logits: Tensor) -> Tensor:
    """The target (B, H, W) int64; ValueError if its size does not match the logits."""
    target = _without_channel(target)
    if target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, expected"
            f" {(logits.shape[0], *logits.shape[2:])} as in logits"
        )
    return target.long()


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes.

    Every process then computes the same loss from it, and DDP averages the gradients over
    processes. Multiplying the gradient by their number turns that mean into the sum.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.distributed.get_world_size()


def _sum_over_ranks(value: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(value)  # type: ignore[no-untyped-call]
    return total


def resize_nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H, W) or (B, 1, H, W) of any dtype to (B, *size): the pixel at each new pixel's center.

    A center on the border between two pixels takes the later one, as in nnU-Net's resampling.
    """
    target = _without_channel(target)
    if target.shape[1:] == tuple(size):
        return target
    rows, columns = (
        ((2 * torch.arange(new, device=target.device) + 1) * old).div(
            2 * new, rounding_mode="floor"
        )
        for new, old in zip(size, target.shape[1:], strict=True)
    )
    return target[:, rows[:, None], columns]


def _without_channel(target: Tensor) -> Tensor:
    if target.is_floating_point() or target.is_complex():
        raise TypeError(f"target: got {target.dtype}, expected integer class indices")
    if target.ndim == 4 and target.shape[1] == 1:
        return target[:, 0]
    if target.ndim != 3:
        raise ValueError(
            f"target: got shape {tuple(target.shape)}, expected (B, H, W) or (B, 1, H, W)"
        )
    return target


def _accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
