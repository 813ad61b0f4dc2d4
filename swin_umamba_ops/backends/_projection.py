"""The gradient that the scan's input gets through its projection."""

from __future__ import annotations

from torch import Tensor

from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.backends.protocols import Gradients


def with_projection(gradients: Gradients, x_proj_weight: Tensor | None) -> Gradients:
    """SS2DInputs' gradients with dproj @ x_proj_weight added to dx in place, if it is given."""
    dx, dproj, *others = gradients
    if x_proj_weight is None or dx is None or dproj is None:
        return gradients
    rows, channels = x_proj_weight.shape
    with autocast_off(dx):
        # The product is added before it is rounded.
        dx.view(-1, channels).addmm_(dproj.view(-1, rows), x_proj_weight)
    return (dx, dproj, *others)
