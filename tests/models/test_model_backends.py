"""Fused ops around the scans run on the model's backend."""

from __future__ import annotations

import pytest
from model_cases import model_cases

from swin_umamba_ops import fused


@pytest.mark.parametrize(("backend", "expected"), [("pytorch", "pytorch"), ("cpu", "auto")])
@pytest.mark.parametrize("name", model_cases())
def test_fused_ops_follow_the_models_backend(name, backend, expected, small, image, monkeypatch):
    """So that a model on "pytorch" needs no Triton, even where there are GPUs."""
    seen = set()
    resolved = fused.resolved

    def record(op, wanted, *rest):
        seen.add((op, wanted))
        return resolved(op, wanted, *rest)

    monkeypatch.setattr(fused, "resolved", record)
    small(name, dims=(8, 12), depths=(1, 1), backend=backend)(image(1, 2, 16, 16))
    assert {wanted for _, wanted in seen} == {expected}
    assert {op for op, _ in seen} >= {"layer_norm", "depthwise_conv_silu"}
