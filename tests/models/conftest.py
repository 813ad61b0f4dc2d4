"""Golden values, and models small enough to run often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_cases import options_of

from swin_umamba import create_model
from swin_umamba.models import SegmentationModel

SMALL = {"dims": (8, 16, 24), "depths": (1, 2, 1), "d_state": 4}


@pytest.fixture
def small() -> Callable[..., SegmentationModel]:
    """Build a reduced model by name, with repeatable weights."""

    def build(name: str, **kwargs: Any) -> SegmentationModel:
        torch.manual_seed(0)
        return create_model(
            **{**options_of(name, in_channels=2, out_channels=3, **SMALL), **kwargs}
        )

    return build


@pytest.fixture
def image() -> Callable[..., torch.Tensor]:
    """Normal noise of a shape."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)

    return make
