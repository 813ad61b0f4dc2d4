"""Every model with every kind of encoder, by the names used in tests: MODEL or MODEL+ENCODER."""

from __future__ import annotations

from typing import Any

from swin_umamba import create_model, model_names
from swin_umamba.models import SegmentationModel

SECOND = "vmamba_v2_tiny_s1l8"
MODELS_OF_SECOND = ("swin_umamba", "swin_umamba_d")
"""Those that take encoders of VMamba's second generation."""


def model_cases() -> list[str]:
    """One of each kind; of the second generation's encoders the six differ in numbers alone."""
    return [*model_names(), *(f"{name}+{SECOND}" for name in MODELS_OF_SECOND)]


def options_of(case: str, **options: Any) -> dict[str, Any]:
    """The name and encoder of a case as arguments of `create_model`, with further ones.

    d_state, of the first generation in tests, is left to encoders of the second.
    """
    name, _, encoder = case.partition("+")
    if not encoder:
        return {"name": name, **options}
    options.pop("d_state", None)
    return {"name": name, "encoder": encoder, **options}


def build(case: str, **options: Any) -> SegmentationModel:
    """The model of a case by `create_model`."""
    return create_model(**options_of(case, **options))
