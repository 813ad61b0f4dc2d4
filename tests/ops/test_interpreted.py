"""Triton's kernels on the CPU, where there is no GPU: the tests that need them, interpreted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interpreted import run_interpreted

from swin_umamba_ops.backends import triton as backend

pytest.importorskip("triton")
# By what a process takes: most of the time of the second is for PyTorch's own checks.
FILES = (
    ("test_triton.py",),
    ("test_fused.py", "test_fused_registry.py", "test_segmentation_sums.py"),
)


def test_every_file_that_needs_kernels_is_interpreted() -> None:
    here = Path(__file__)
    found = {
        path.name
        for path in here.parent.glob("test_*.py")
        if path != here and "needs_kernels" in path.read_text()
    }
    assert found == {name for files in FILES for name in files}


@pytest.mark.slow
@pytest.mark.skipif(
    torch.cuda.is_available() or backend.why_unusable() is None, reason="they run in this process"
)
@pytest.mark.parametrize("files", FILES, ids="-".join)
def test_interpreted_on_the_cpu(files: tuple[str, ...]) -> None:
    run_interpreted(*files)
