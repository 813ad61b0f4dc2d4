"""Checkpoints of every format, generated from names and a rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def vmamba_names() -> dict[str, list[int]]:
    """Names and shapes of VMamba-Tiny's first ImageNet checkpoint."""
    names: dict[str, list[int]] = json.loads(
        (FIXTURES / "vmamba_tiny_v0_state_dict.json").read_text()
    )
    return names


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write anything with torch.save, and return the path."""

    def save(content: Any, name: str = "checkpoint.pth", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save
