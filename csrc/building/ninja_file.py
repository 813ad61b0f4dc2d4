"""Write a plan as build.ninja, and run it: each source separately, only what changed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from building.plan import CXX_FLAGS, NVCC_FLAGS, Plan
from building.toolchain import Missing

HEADER = "build_info.h"
# $log contains nvcc's report, with the kernels' registers and spills, for the tests of the build.
_RULES = """\
ninja_required_version = 1.5

rule cxx
  command = {cxx} {cxx_flags} $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = C++ $in

rule nvcc
  command = {nvcc} {nvcc_flags} $flags -MD -MF $out.d -c $in -o $out > $log 2>&1 || $
      {{ cat $log; exit 1; }}
  depfile = $out.d
  deps = gcc
  description = CUDA $in

rule link
  command = {link} $in -o $out {link_flags}
  description = link $out
"""


def text(plan: Plan, target: str) -> str:
    """The file's content; target: the module's path relative to the build folder."""
    link = [*plan.cxx, "-shared"]
    link_flags = plan.link_flags
    if plan.nvcc is not None:  # it knows where its static runtime is
        ccbin = [flag for step in plan.steps for flag in step.flags if flag.startswith("-ccbin=")]
        link = [plan.nvcc, "-shared", "-cudart=static", *ccbin[:1]]
        link_flags = [part for flag in link_flags for part in _through_nvcc(flag)]
    lines = [
        _RULES.format(
            cxx=_joined(plan.cxx),
            cxx_flags=_joined(CXX_FLAGS),
            nvcc=_joined([plan.nvcc or "nvcc"]),
            nvcc_flags=_joined(NVCC_FLAGS),
            link=_joined(link),
            link_flags=_joined(link_flags),
        )
    ]
    for step in plan.steps:
        lines.append(f"build {_path(step.object)}: {step.rule} {_path(str(step.source))}")
        lines.append(f"  flags = {_joined(step.flags)}")
        if step.rule == "nvcc":
            lines.append(f"  log = {Path(step.object).with_suffix('.ptxas.log')}")
    objects = " ".join(_path(step.object) for step in plan.steps)
    lines.append(f"\nbuild {_path(target)}: link {objects}\ndefault {_path(target)}\n")
    return "\n".join(lines)


def _through_nvcc(flag: str) -> list[str]:
    """A linker flag for the host compiler, passed through nvcc, which splits at commas."""
    if flag.startswith("-Wl,"):
        return [f"-Xlinker={part}" for part in flag.split(",")[1:]]
    return [f"-Xcompiler={flag}"]


def _joined(arguments: list[str]) -> str:
    return shlex.join(arguments).replace("$", "$$")


def _path(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def find_ninja() -> str:
    """The path of ninja: from the Python package, or the system's. Missing if there is none."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        found = shutil.which("ninja")
    else:
        found = shutil.which("ninja", path=BIN_DIR) or shutil.which("ninja")
    if found is None:
        raise Missing("ninja was not found (pip install ninja)")
    return found


def build(plan: Plan, folder: Path, environment: Mapping[str, str]) -> Path:
    """Compile and link what changed; returns the module's path. CalledProcessError on failure."""
    ninja = find_ninja()
    folder.mkdir(parents=True, exist_ok=True)
    _write_if_other(folder / HEADER, plan.build_info_header())
    target = folder / "_C.so"
    _write_if_other(folder / "build.ninja", text(plan, target.name))
    jobs = environment.get("MAX_JOBS") or str(_cores())
    subprocess.run([ninja, "-C", str(folder), f"-j{int(jobs)}"], check=True)
    return target


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_if_other(path: Path, content: str) -> None:
    """Write a file only if its content changes: ninja goes by modification times."""
    if not path.is_file() or path.read_text() != content:
        path.write_text(content)
