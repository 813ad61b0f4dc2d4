"""A build with a compiler without OpenMP and AVX-512: it installs, works, and reports what it
lacks."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import builds
import pytest

pytestmark = pytest.mark.slow
OLD_COMPILER = """\
#!/bin/sh
for flag in "$@"; do
  case "$flag" in
    -fopenmp|-mavx512*) echo "error: unrecognized option '$flag'" >&2; exit 1 ;;
  esac
done
exec c++ "$@"
"""
CHECK = """
import torch, swin_umamba_ops as ops
from swin_umamba_ops import _C
assert not _C.cpu.has_openmp()
assert "avx512" not in _C.cpu.instruction_sets()
x = torch.randn(1, 20, 3, 5)
rest = [torch.randn(s) for s in ((4, 6, 20), (4, 20, 2), (4, 20), (80, 2), (80,))]
torch.set_num_threads(3)
found, exact = (ops.ss2d(x, *rest, backend=b) for b in ("cpu", "reference"))
assert torch.allclose(found, exact, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_what_the_compiler_lacks_is_left_out_and_told(tmp_path: Path) -> None:
    compiler = tmp_path / "old-c++"
    compiler.write_text(OLD_COMPILER)
    compiler.chmod(0o755)
    sources = builds.copy_sources(tmp_path / "sources")
    variables = builds.environment(tmp_path / "tools", CXX=str(compiler))
    done = builds.run(["setup.py", "build_ext", "--inplace"], sources, variables)
    assert done.returncode == 0, done.stdout
    assert "swin-umamba: built without openmp: the compiler has no OpenMP" in done.stdout

    # Its folder comes first on the import path, but an editable install's finder before that.
    start = builds.without_editable_installs(tmp_path / "start")
    variables = variables | {"PYTHONPATH": str(start)}
    report = builds.run(["-m", "swin_umamba_ops"], sources, variables).stdout
    assert "openmp: the compiler has no OpenMP" in report
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert "avx512: the compiler refuses its flags" in report
    done = builds.run(["-c", CHECK], sources, variables)
    assert done.returncode == 0, done.stdout
