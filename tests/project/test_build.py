"""Wheels and in-place builds, without nvcc, without a compiler and with an old one."""

from __future__ import annotations

import email
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import builds
import pytest
from filelock import FileLock
from made_once import made_once

pytestmark = pytest.mark.slow
IN_PLACE = ["setup.py", "build_ext", "--inplace"]
# What holds for a module that an old compiler made.
WITHOUT_OPENMP = """
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


@dataclass
class Built:
    """A wheel that was built and unpacked."""

    sources: Path
    place: Path
    output: str
    variables: dict[str, str]
    in_place: str = ""  # output of a build in place after it

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python where the unpacked wheel is imported, and the checkout is not."""
        paths = (builds.without_editable_installs(self.place.parent / "start"), self.place)
        variables = self.variables | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        return builds.run(list(arguments), self.place.parent, variables)

    @property
    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file()
        }


Scratch = Callable[[str], Path]


def _built(scratch: Path, **changes: str) -> Built:
    sources = builds.copy_sources(scratch / "sources")
    variables = builds.environment(scratch / "tools", **changes)
    done = builds.make_wheel(sources, scratch / "out", variables)
    assert done.returncode == 0, done.stdout
    return Built(sources, builds.unpack(scratch / "out"), done.stdout, variables)


@pytest.fixture(scope="module")
def without_nvcc(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Compiled once for all workers; to build in its sources, take `sources_without_nvcc`."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")

    def make(folder: Path) -> None:
        built = _built(folder)
        again = builds.run(IN_PLACE, built.sources, built.variables)
        (folder / "output").write_text(built.output)
        (folder / "in_place").write_text(again.stdout)

    folder = made_once(tmp_path_factory, "without_nvcc", make)
    return Built(
        folder / "sources",
        folder / "out" / "unpacked",
        (folder / "output").read_text(),
        builds.environment(folder / "tools"),
        (folder / "in_place").read_text(),
    )


@pytest.fixture
def sources_without_nvcc(without_nvcc: Built) -> Iterator[Path]:
    """The sources of `without_nvcc`, in which one test at a time builds."""
    with FileLock(without_nvcc.sources.with_name("sources.lock")):
        yield without_nvcc.sources


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Built:
    scratch = tmp_path_factory.mktemp("without_compiler")
    return _built(scratch, CC="/bin/false", CXX="/bin/false")


# ---- what lies in a wheel


def _python_files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for package in ("swin_umamba", "swin_umamba_ops")
        for path in (folder / package).rglob("*.py")
    }


def test_the_wheel_holds_the_packages_and_nothing_else(without_nvcc: Built) -> None:
    own = {name for name in without_nvcc.files if ".dist-info/" not in name}
    (module,) = {name for name in own if name.endswith(".so")}
    assert re.fullmatch(r"swin_umamba_ops/_C\.[\w.-]+\.so", module)
    typed = {"swin_umamba/py.typed", "swin_umamba_ops/py.typed"}
    assert own == _python_files(without_nvcc.sources) | typed | {module}
    assert any(name.endswith("/licenses/LICENSE") for name in without_nvcc.files)


def test_metadata(without_nvcc: Built) -> None:
    (file,) = without_nvcc.place.glob("*.dist-info/METADATA")
    told = email.message_from_string(file.read_text(encoding="utf-8"))
    version = without_nvcc.python("-c", "import swin_umamba_ops as o; print(o.__version__)")
    assert told["Version"] == version.stdout.strip()
    assert (told["Name"], told["License-Expression"]) == ("swin-umamba", "Apache-2.0")
    assert set(told.get_all("Provides-Extra")) == {
        "train",
        "formats",
        "bench",
        "export",
        "all",
        "docs",
        "dev",
    }
    (points,) = without_nvcc.place.glob("*.dist-info/entry_points.txt")
    assert "swin-umamba = swin_umamba.cli:app" in points.read_text()


# ---- without nvcc


def test_the_module_needs_no_torch(without_nvcc: Built) -> None:
    (module,) = without_nvcc.place.glob("swin_umamba_ops/_C*.so")
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_C", {str(module)!r})
_C = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_C)
assert "torch" not in sys.modules
assert hasattr(_C, "cpu") and not hasattr(_C, "cuda")
info = _C.build_info()
assert info["cuda"] is False and "nvcc was not found" in info["left_out"]["cuda"], info
"""
    done = without_nvcc.python("-c", code)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_the_module_is_bound_to_no_torch_and_no_cuda_library(without_nvcc: Built) -> None:
    (module,) = without_nvcc.place.glob("swin_umamba_ops/_C*.so")
    symbols = subprocess.check_output(["nm", "-DC", "--undefined-only", module], text=True)
    assert "PyObject" in symbols or "Py_" in symbols
    assert not re.search(r"\b(c10|at|torch|caffe2)::|\bcuda[A-Z]", symbols)
    libraries = subprocess.check_output(["ldd", str(module)], text=True)
    assert not re.search(r"lib(torch|c10|cudart|stdc\+\+)", libraries)


def test_without_nvcc_the_reason_is_told(without_nvcc: Built) -> None:
    assert "swin-umamba: built without cuda: nvcc was not found" in without_nvcc.output
    report = without_nvcc.python("-m", "swin_umamba_ops").stdout
    assert re.search(r"cuda +no: .*built without cuda kernels: nvcc was not found", report)
    assert re.search(r"cpu +usable", report)


def test_cuda_without_nvcc_is_an_error_where_it_is_asked_for(
    without_nvcc: Built, sources_without_nvcc: Path, tmp_path: Path
) -> None:
    asked = without_nvcc.variables | {"SWIN_UMAMBA_CUDA": "1"}
    done = builds.make_wheel(sources_without_nvcc, tmp_path, asked)
    assert done.returncode != 0
    assert "SWIN_UMAMBA_CUDA=1 asks for the CUDA kernels, but nvcc was not found" in done.stdout
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SWIN_UMAMBA_CUDA", "yes", "SWIN_UMAMBA_CUDA is 'yes', expected auto, 0 or 1"),
        ("SWIN_UMAMBA_CUDA_ARCHS", "Hopper", "SWIN_UMAMBA_CUDA_ARCHS: 'Hopper' is not a GPU"),
    ],
)
def test_a_variable_that_is_not_understood_is_an_error(
    without_nvcc: Built,
    sources_without_nvcc: Path,
    tmp_path: Path,
    name: str,
    value: str,
    message: str,
) -> None:
    variables = without_nvcc.variables | {name: value, "CUDA_HOME": str(_broken_cuda(tmp_path))}
    done = builds.run(["setup.py", "build_ext"], sources_without_nvcc, variables)
    assert done.returncode != 0
    assert message in done.stdout


def _broken_cuda(folder: Path) -> Path:
    nvcc = folder / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(builds.BROKEN_NVCC)
    nvcc.chmod(0o755)
    return nvcc.parents[1]


# ---- in place


def test_an_editable_install_puts_the_module_beside_the_sources(
    without_nvcc: Built, sources_without_nvcc: Path, tmp_path: Path
) -> None:
    for module in sources_without_nvcc.glob("swin_umamba_ops/_C*.so"):
        module.unlink()
    # A prefix of its own, and what this environment has stays.
    options = ["--ignore-installed", "--prefix", str(tmp_path), "--no-index", "--no-deps"]
    install = ["-m", "pip", "install", "--no-build-isolation", *options, "-e", "."]
    done = builds.run(install, sources_without_nvcc, without_nvcc.variables)
    assert done.returncode == 0, done.stdout
    assert list(sources_without_nvcc.glob("swin_umamba_ops/_C*.so"))
    assert list(tmp_path.rglob("swin-umamba")), "the command"
    assert not list(tmp_path.rglob("_C*.so"))


def test_in_place_only_what_changed_is_built_again(
    without_nvcc: Built, sources_without_nvcc: Path
) -> None:
    again = without_nvcc.in_place
    assert "ninja: no work to do" in again, "the wheel's objects were not used again"
    sources, variables = sources_without_nvcc, without_nvcc.variables
    builds.run(IN_PLACE, sources, variables)
    assert list(sources.glob("swin_umamba_ops/_C*.so"))

    header = sources / "csrc" / "cpu" / "vec.h"
    header.write_text(header.read_text() + "\n// changed\n")
    changed = builds.run(IN_PLACE, sources, variables).stdout
    assert "kernels_base.cpp" in changed
    assert "link" in changed
    assert "bindings.cpp" not in changed


def test_cuda_sources_that_do_not_compile_are_left_out_loudly(
    without_nvcc: Built, sources_without_nvcc: Path, tmp_path: Path
) -> None:
    broken = without_nvcc.variables | {"CUDA_HOME": str(_broken_cuda(tmp_path))}
    insisting = builds.run(IN_PLACE, sources_without_nvcc, broken | {"SWIN_UMAMBA_CUDA": "1"})
    assert insisting.returncode != 0
    assert "internal error: assertion failed" in insisting.stdout

    done = builds.run(IN_PLACE, sources_without_nvcc, broken)
    assert done.returncode == 0, done.stdout
    reason = "the CUDA sources do not compile with nvcc 12.8"
    assert f"swin-umamba: built WITHOUT its CUDA kernels: {reason}" in done.stdout
    shown = builds.run(["-m", "swin_umamba_ops"], sources_without_nvcc, broken).stdout
    assert f"built without cuda kernels: {reason}" in shown


# ---- without a compiler


def test_without_a_compiler_plain_python_is_installed(without_compiler: Built) -> None:
    assert "installed WITHOUT its compiled kernels: no C++17 compiler" in without_compiler.output
    own = {name for name in without_compiler.files if ".dist-info/" not in name}
    expected = _python_files(without_compiler.sources)
    assert own - expected == {
        "swin_umamba/py.typed",
        "swin_umamba_ops/py.typed",
        "swin_umamba_ops/_not_compiled.txt",
    }


def test_without_a_compiler_the_ops_work_and_say_why_they_are_slow(
    without_compiler: Built,
) -> None:
    report = without_compiler.python("-m", "swin_umamba_ops").stdout
    for backend in ("cuda", "cpu"):
        assert re.search(rf"{backend} +no: .*no C\+\+17 compiler works here", report)
    code = """
import torch, swin_umamba_ops as ops
x = torch.randn(1, 4, 3, 5, requires_grad=True)
rest = [torch.randn(s) for s in ((4, 6, 4), (4, 4, 2), (4, 4), (16, 2), (16,))]
ops.ss2d(x, *rest).sum().backward()
assert x.grad.isfinite().all()
try:
    ops.ss2d(x, *rest, backend="cpu")
except RuntimeError as error:
    assert "no C++17 compiler works here" in str(error), error
else:
    raise AssertionError("the cpu backend ran without its module")
"""
    done = without_compiler.python("-c", code)
    assert done.returncode == 0, done.stdout


# ---- a compiler that comes later, without OpenMP and AVX-512


@pytest.fixture(scope="module")
def old_compiler(
    without_compiler: Built, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], str]:
    """The environment of a build in place where none was, and what that build printed."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    scratch = tmp_path_factory.mktemp("old_compiler")
    compiler = scratch / "old-c++"
    compiler.write_text(builds.OLD_COMPILER)
    compiler.chmod(0o755)
    builds.run(IN_PLACE, without_compiler.sources, without_compiler.variables)
    assert (without_compiler.sources / "swin_umamba_ops" / "_not_compiled.txt").is_file()
    variables = builds.environment(scratch / "tools", CXX=str(compiler))
    done = builds.run(IN_PLACE, without_compiler.sources, variables)
    assert done.returncode == 0, done.stdout
    # Its folder comes first on the import path, but an editable install's finder before that.
    start = builds.without_editable_installs(scratch / "start")
    return variables | {"PYTHONPATH": str(start)}, done.stdout


def test_a_compiler_is_used_once_it_is_there(
    without_compiler: Built, old_compiler: tuple[dict[str, str], str]
) -> None:
    """And the note that it was missing goes."""
    place = without_compiler.sources / "swin_umamba_ops"
    assert list(place.glob("_C*.so"))
    assert not (place / "_not_compiled.txt").exists()


def test_what_the_compiler_lacks_is_left_out_and_told(
    without_compiler: Built, old_compiler: tuple[dict[str, str], str]
) -> None:
    variables, output = old_compiler
    assert "swin-umamba: built without openmp: the compiler has no OpenMP" in output
    report = builds.run(["-m", "swin_umamba_ops"], without_compiler.sources, variables).stdout
    assert "openmp: the compiler has no OpenMP" in report
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert "avx512: the compiler refuses its flags" in report
    done = builds.run(["-c", WITHOUT_OPENMP], without_compiler.sources, variables)
    assert done.returncode == 0, done.stdout


# ---- the wheel for every system


def test_the_pure_wheel_fits_every_system_and_says_what_it_lacks(tmp_path: Path) -> None:
    pure = _built(tmp_path, SWIN_UMAMBA_PURE="1")
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    own = {name for name in pure.files if ".dist-info/" not in name}
    assert own - _python_files(pure.sources) == {
        "swin_umamba/py.typed",
        "swin_umamba_ops/py.typed",
        "swin_umamba_ops/_not_compiled.txt",
    }
    report = pure.python("-m", "swin_umamba_ops").stdout
    assert "this is the wheel for every system" in report
