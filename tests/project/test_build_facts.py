"""The compiled module's description of its build is true."""

from __future__ import annotations

import pytest


def test_facts_agree_with_the_module() -> None:
    compiled = pytest.importorskip("swin_umamba_ops._C", reason="needs the compiled module")
    info = compiled.build_info()
    assert info["openmp"] == compiled.cpu.has_openmp()
    assert info["cuda"] == hasattr(compiled, "cuda") == bool(info["cuda_archs"])
    # The base kernels, and those of the instruction sets that this machine runs.
    assert set(compiled.cpu.instruction_sets()) <= {*info["simd"], "base"}
    for part in ("openmp", "cuda"):
        assert info[part] == (part not in info["left_out"])
