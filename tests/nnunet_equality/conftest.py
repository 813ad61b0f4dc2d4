"""Tests against the installed nnunetv2 and batchgeneratorsv2; without them they are skipped.

In an environment of its own, since nnunetv2 may ask for another torch:

    pip install nnunetv2
    pip install -e '.[train]' pytest
    python -m pytest tests/nnunet_equality
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MISSING = [
    name for name in ("nnunetv2", "batchgeneratorsv2") if importlib.util.find_spec(name) is None
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.nnunet)
            if MISSING:
                item.add_marker(pytest.mark.skip(reason=f"{MISSING[0]} is not installed"))
