"""The CPU kernels compiled for aarch64, whose baseline vectors are NEON, and run in an emulator."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from building.plan import CSRC, CXX_FLAGS

PROGRAM = Path(__file__).with_name("cpu_program.cpp")
SOURCES = [CSRC / "cpu" / f"{name}.cpp" for name in ("dispatch", "kernels_base", "ops")]


def _compiled(compiler: str, folder: Path) -> Path:
    flags = ["-O2" if flag == "-O3" else flag for flag in CXX_FLAGS]
    out = folder / "program"
    command = [compiler, *flags, "-Werror", "-static", f"-I{CSRC}", "-pthread", "-o", str(out)]
    done = subprocess.run(
        [*command, str(PROGRAM), *map(str, SOURCES)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return out


def _says_that_it_agrees(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "forward and backward agree with the formula" in done.stdout


@pytest.mark.slow
def test_on_aarch64(tmp_path: Path) -> None:
    compiler, emulator = map(shutil.which, ("aarch64-linux-gnu-g++", "qemu-aarch64-static"))
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64-static")
    program = _compiled(compiler, tmp_path)
    if shutil.which("aarch64-linux-gnu-objdump"):
        code = subprocess.run(
            ["aarch64-linux-gnu-objdump", "-d", str(program)], capture_output=True, text=True
        ).stdout
        assert "fmla\tv" in code, "no vector instructions"
    _says_that_it_agrees([emulator, str(program)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["c++", "g++-10", "g++-11", "clang++"])
def test_on_this_machine(name: str, tmp_path: Path) -> None:
    compiler = shutil.which(name)
    if compiler is None or platform.system() != "Linux":
        pytest.skip("needs a C++ compiler that links statically")
    _says_that_it_agrees([str(_compiled(compiler, tmp_path))])
