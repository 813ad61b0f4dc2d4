"""The sums of soft Dice and cross-entropy: see `swin_umamba_ops.segmentation_sums`."""

from __future__ import annotations

import torch

from swin_umamba_ops.backends._memory import addressable_image
from swin_umamba_ops.inputs import SegmentationSumsInputs
from swin_umamba_ops.ops._check import has_shape, same_dtype
from swin_umamba_ops.ops._fused import FusedOp, Outputs


def _check(inputs: SegmentationSumsInputs) -> None:
    logits, target = inputs
    has_shape("logits", logits, "B", "C", "H", "W")
    B, C, H, W = logits.shape
    if C < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected two classes or more")
    has_shape("target", target, B, H, W)
    same_dtype(torch.int64, ("target",), (target,))


def _outputs(inputs: SegmentationSumsInputs) -> Outputs:
    B, C = inputs.logits.shape[:2]
    return (((B, 2 * C), torch.float32),)


def _classes(inputs: SegmentationSumsInputs) -> int:
    return inputs.logits.shape[1]


segmentation_sums = FusedOp(
    "segmentation_sums", SegmentationSumsInputs, _check, _outputs, size=_classes,
    layouts={"logits": addressable_image},
)  # fmt: skip
