"""What `import swin_umamba` offers."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import swin_umamba
from swin_umamba._moved import MOVED


@pytest.mark.parametrize("name", swin_umamba.__all__)
def test_public_names_are_there(name):
    assert getattr(swin_umamba, name) is not None
    assert name in dir(swin_umamba)


@pytest.mark.slow
def test_modules_load_when_first_named():
    code = """
import sys, swin_umamba
print({"monai", "einops"} & set(sys.modules))
for name in ("losses", "metrics", "models", "summary", "weights"):
    print(getattr(swin_umamba, name).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, *names = done.stdout.splitlines()
    assert before == "set()"
    expected = ("losses", "metrics", "models", "models.summary", "weights")
    assert names == [f"swin_umamba.{name}" for name in expected]


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = swin_umamba.nonsense


@pytest.mark.parametrize("old", MOVED)
def test_modules_answer_to_their_old_names(old):
    moved = importlib.import_module(f"swin_umamba.{old}")
    assert moved is importlib.import_module(f"swin_umamba.{MOVED[old]}")
    assert moved.__spec__.name == f"swin_umamba.{MOVED[old]}"
