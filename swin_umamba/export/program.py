"""A model as one graph for every batch and image size."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel
from swin_umamba.models.fused import use_backend
from swin_umamba.models.ss2d import SS2D

GRAPH_BACKEND = "export"
"""The backend that computes scans by plain operations, which every exported format supports."""
MAX_SIDE = 2**16
Step = Callable[[str], None]
"""Called with what is about to be done, such as "tracing the model": each takes seconds."""
TRACING, VERIFYING = "tracing the model", "verifying the file"
TOLERANCE = 1e-4
"""Maximum difference between the logits of an exported network and of its model."""


def no_step(what: str) -> None:
    """The `Step` of a caller that shows nothing."""


def min_side(model: SegmentationModel) -> int:
    """The smallest height and width that the model's graphs support in torch.

    One more than the stride: torch's graphs distinguish size 1 from larger ones, so the coarsest
    map must not have size 1.
    """
    return model.stride + 1


def trace(
    model: SegmentationModel, *, backend: str = GRAPH_BACKEND, device: torch.device | str = "cpu"
) -> ExportedProgram:
    """The graph from images (B, in_channels, H, W) to the finest logits (B, out_channels, H, W).

    Both float32; B at least 1, H and W at least `min_side(model)`. The model itself is not changed:
    a copy is traced in eval mode, without deep supervision, on `device`, with its scans on
    `backend`. With a backend other than "export" the graph calls our ops, and needs `import
    swin_umamba_ops` wherever it runs.
    """
    network = _Exportable(model, backend).to(device)
    side = min_side(model)
    dynamic = {
        0: Dim("batch", max=2**16),
        2: Dim("height", min=side, max=MAX_SIDE),
        3: Dim("width", min=side, max=MAX_SIDE),
    }
    # An unspecific example: more than one image, not square, not a multiple of the stride.
    example = torch.zeros(2, model.in_channels, 2 * side, 3 * side + 1, device=device)
    with torch.no_grad():
        return torch.export.export(
            network,
            (example,),
            dynamic_shapes={"image": dynamic},
            # Padding to multiples relates sizes in ways that the guard solver cannot prove.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


class DiffersError(UserError, RuntimeError):
    """An exported network does not compute the same as its model."""


def check(
    network: Callable[[Tensor], Tensor],
    model: SegmentationModel,
    *,
    device: torch.device | str = "cpu",
) -> float:
    """The largest difference between the logits of an exported network and of its model, on noise.

    Compared on `device` at two sizes that `trace` did not see, relative to the largest logit if
    that is above 1. Raises DiffersError if it exceeds `TOLERANCE`: the export went wrong.
    """
    eager = _Exportable(model, "auto").to(device).model
    side = min_side(model)
    worst = 0.0
    for shape in ((1, side, 2 * side + 1), (3, 2 * model.stride, model.stride + 5)):
        batch, height, width = shape
        noise = torch.randn(
            (batch, model.in_channels, height, width), generator=torch.Generator().manual_seed(0)
        ).to(device)
        with torch.no_grad():
            expected, found = eager(noise), network(noise).to(device)
        difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
        if not difference <= TOLERANCE:  # a NaN is a failure too
            raise DiffersError(
                f"the exported network differs from the model by {difference:.2g} at"
                f" {height}x{width}, above {TOLERANCE:g}: nothing was written"
            )
        worst = max(worst, difference.item())
    return worst


def for_export(model: SegmentationModel, backend: str) -> SegmentationModel:
    """A copy in evaluation mode and float32, without deep supervision, its scans on `backend`."""
    copied = copy.deepcopy(model).float().eval().requires_grad_(False)
    copied.deep_supervision = False
    use_backend(copied, backend)
    for module in copied.modules():
        if isinstance(module, SS2D):
            module.backend = backend
    return copied


class _Exportable(nn.Module):
    """`SegmentationModel.forward` without branches on the image's size."""

    def __init__(self, model: SegmentationModel, backend: str) -> None:
        super().__init__()
        self.model = for_export(model, backend)

    def forward(self, image: Tensor) -> Tensor:
        stride = self.model.stride
        height, width = image.shape[-2:]
        padded_height = (height + stride - 1) // stride * stride
        padded_width = (width + stride - 1) // stride * stride
        padded = F.pad(image, (0, padded_width - width, 0, padded_height - height))
        logits = self.model.logits(padded)[0]
        # Slicing would check whether anything is cut off, and fix the example's answer in the
        # graph.
        rows = torch.arange(height, device=image.device)
        columns = torch.arange(width, device=image.device)
        return logits.index_select(2, rows).index_select(3, columns)
