"""The compilers of this machine and their capabilities, detected by running them."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_OPENMP_PROBE = """
#include <omp.h>
extern "C" int threads() {
  int n = 0;
#pragma omp parallel num_threads(2) reduction(+ : n)
  n += omp_get_num_threads();
  return n;
}
"""
_CXX17_PROBE = """
#include <string>
template <int N> int f() { if constexpr (N > 1) return N; else return 0; }
extern "C" int probe(const char* s) {
  if (auto t = std::string(s); t.empty()) throw f<2>();
  return f<1>();
}
"""
_EMPTY_PROBE = 'extern "C" int probe() { return 0; }\n'


class Missing(Exception):  # noqa: N818
    """A tool or feature that is missing; the message is the reason."""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool; one that cannot be started counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")


@dataclass(frozen=True)
class Cxx:
    """A C++17 compiler that works."""

    command: list[str]
    version: str

    def accepts(self, flags: list[str], source: str = _EMPTY_PROBE) -> str | None:
        """None if it can build a shared library from the source with these flags, else why not."""
        return _try_to_link(self.command, flags, source)


def _try_to_link(command: list[str], flags: list[str], source: str) -> str | None:
    with tempfile.TemporaryDirectory(prefix="swin-umamba-probe-") as folder:
        probe = Path(folder) / "probe.cpp"
        probe.write_text(source)
        library = str(probe.with_suffix(".so"))
        done = _run([*command, "-std=c++17", "-fPIC", "-shared", *flags, str(probe), "-o", library])
        if done.returncode:
            return _first_line(done.stderr or f"it ended with status {done.returncode}")
        if not Path(library).is_file():
            return "it wrote no file"
    return None


def find_cxx(environment: Mapping[str, str]) -> Cxx:
    """$CXX if it is set, else Python's own compiler, c++, g++ or clang++. Missing if none works."""
    if sys.platform == "win32":
        raise Missing("the C++ kernels are not built on Windows")
    if environment.get("CXX"):
        candidates = [environment["CXX"]]
    else:
        candidates = [sysconfig.get_config_var("CXX") or "c++", "c++", "g++", "clang++"]
    reasons = []
    for candidate in dict.fromkeys(candidates):
        command = shlex.split(candidate)
        reason = _try_to_link(command, [], _CXX17_PROBE)
        if reason is None:
            return Cxx(command, _first_line(_run([*command, "--version"]).stdout))
        reasons.append(f"{candidate}: {reason}")
    raise Missing(f"no C++17 compiler works here ({'; '.join(reasons)})")


def openmp_flags(cxx: Cxx) -> list[str]:
    """Flags to compile and link OpenMP. Missing if the compiler does not support it."""
    reason = cxx.accepts(["-fopenmp"], _OPENMP_PROBE)
    if reason is not None:
        raise Missing(f"the compiler has no OpenMP ({reason})")
    return ["-fopenmp"]


@dataclass(frozen=True)
class Nvcc:
    """CUDA's compiler."""

    path: str
    version: str
    capabilities: list[tuple[int, int]]
    compresses: bool

    @property
    def min_driver(self) -> str:
        """The CUDA version that a driver must support to load its output: the first of its major
        version, and for compressed machine code at least 12.4."""
        first = (int(self.version.partition(".")[0]), 0)
        major, minor = max(first, (12, 4)) if self.compresses else first
        return f"{major}.{minor}"


def find_nvcc(environment: Mapping[str, str]) -> Nvcc:
    """nvcc below $CUDA_HOME or $CUDA_PATH, else on the path. Missing if there is none."""
    homes = [environment[name] for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    named = [str(Path(home) / "bin" / "nvcc") for home in homes]
    path = next(filter(None, map(shutil.which, named)), None)
    path = path or shutil.which("nvcc", path=environment.get("PATH", os.defpath))
    if path is None:
        raise Missing("nvcc was not found (on the path, or in bin below CUDA_HOME)")
    version_text = _run([path, "--version"])
    version = re.search(r"release (\d+\.\d+)", version_text.stdout)
    listed = _run([path, "--list-gpu-arch"])
    capabilities = [
        (int(major), int(minor))
        for major, minor in re.findall(r"^compute_(\d+)(\d)$", listed.stdout, re.MULTILINE)
    ]
    if version is None or not capabilities:
        raise Missing(f"{path} does not work ({_first_line(version_text.stderr + listed.stderr)})")
    compresses = "--compress-mode" in _run([path, "--help"]).stdout
    return Nvcc(path, version.group(1), capabilities, compresses)


def seen_gpus() -> Iterator[tuple[int, int]]:
    """Compute capabilities of the GPUs reported by the driver; none without a driver."""
    listed = _run(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    if listed.returncode == 0:
        for major, minor in re.findall(r"^(\d+)\.(\d)$", listed.stdout, re.MULTILINE):
            yield int(major), int(minor)


def instruction_sets() -> dict[str, list[str]]:
    """The instruction sets for which csrc/cpu may have files, with the compiler's flags.

    A file named *_avx2.cpp is compiled with those of "avx2", and so on.
    """
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return {
            "avx2": ["-mavx2", "-mfma"],
            "avx512": [
                *("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma"),
                "-mprefer-vector-width=512",
            ],
        }
    if machine in ("aarch64", "arm64"):
        return {"neon": []}
    return {}


ALL_INSTRUCTION_SETS = ("avx2", "avx512", "neon")
