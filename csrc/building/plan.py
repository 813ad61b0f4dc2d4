"""What is compiled, with which flags, and what is left out and why."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pybind11

from building import archs, toolchain
from building.toolchain import Missing

SWITCH = "SWIN_UMAMBA_CUDA"
CSRC = Path(__file__).resolve().parents[1]

CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++17", "-O3", "--expt-relaxed-constexpr"]
NVCC_HOST_FLAGS = ["-fPIC", "-fvisibility=hidden"]
# Files compiled together where only PTX is made: half of the time that a single one takes is for
# CUDA's headers and the host. Machine code takes so much longer that this would not matter.
PTX_AT_ONCE = 4


@dataclass
class Step:
    """A source file, its compiler and its flags."""

    source: Path
    object: str  # relative to the build folder
    rule: str  # "cxx" or "nvcc"
    flags: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """Everything ninja needs, and the facts reported by `build_info()`."""

    cxx: list[str]
    nvcc: str | None
    steps: list[Step]
    link_flags: list[str]
    facts: dict[str, object]

    def build_info_header(self) -> str:
        """The facts as a C++ header, for the bindings."""
        text = json.dumps(self.facts, indent=1)
        return f'#pragma once\nstatic const char kBuildInfo[] = R"json({text})json";\n'


def cuda_switch(environment: Mapping[str, str]) -> str:
    """The value of the switch: "auto", "0" or "1". ValueError for anything else."""
    value = environment.get(SWITCH, "").strip().lower() or "auto"
    if value not in ("auto", "0", "1"):
        raise ValueError(f"{SWITCH} is {value!r}, expected auto, 0 or 1")
    return value


def make(environment: Mapping[str, str], version: str, without_cuda: str = "") -> Plan:
    """Inspect the machine and plan the build.

    without_cuda: reason to leave out CUDA in any case. Missing if there is no C++ compiler, or no
    nvcc although SWIN_UMAMBA_CUDA=1; ValueError for an invalid variable.
    """
    switch = cuda_switch(environment)
    cxx = toolchain.find_cxx(environment)
    left_out: dict[str, str] = {}
    nvcc, selected = None, []
    try:
        if switch == "0":
            raise Missing(f"{SWITCH}=0 was set")
        if without_cuda:
            raise Missing(without_cuda)
        nvcc = toolchain.find_nvcc(environment)
        selected = archs.select(environment, toolchain.seen_gpus(), nvcc.capabilities)
    except Missing as reason:
        if switch == "1":
            raise Missing(f"{SWITCH}=1 asks for the CUDA kernels, but {reason}") from None
        left_out["cuda"] = str(reason)

    if selected and not any(arch.machine_code for arch in selected):
        left_out["machine code for GPUs"] = archs.VIRTUAL_NOTE

    try:
        openmp = toolchain.openmp_flags(cxx)
    except Missing as reason:
        openmp = []
        left_out["openmp"] = str(reason)

    cpu_steps, simd = _cpu_steps(cxx, openmp, left_out)
    defines = [f"-DSWIN_UMAMBA_{name.upper()}=1" for name in simd]
    if openmp:
        defines.append("-DSWIN_UMAMBA_OPENMP=1")
    if nvcc is not None:
        defines.append("-DSWIN_UMAMBA_CUDA=1")
    cxx_steps = [_bindings_step(), *cpu_steps]
    for step in cxx_steps:
        # The user's own flags come last and take precedence.
        step.flags = [*step.flags, *defines, *_split(environment, "CXXFLAGS")]
    return Plan(
        cxx=cxx.command,
        nvcc=None if nvcc is None else nvcc.path,
        # ninja starts them in this order: the longest first, and what is most likely to fail.
        steps=[
            *([] if nvcc is None else _cuda_steps(environment, cxx, nvcc, selected)),
            *cxx_steps,
        ],
        link_flags=[*openmp, *_link_flags(cxx), *_split(environment, "LDFLAGS")],
        facts={
            "version": version,
            "compiler": cxx.version,
            "simd": simd,
            "openmp": bool(openmp),
            "cuda": nvcc is not None,
            "cuda_version": "" if nvcc is None else nvcc.version,
            "min_driver": "" if nvcc is None else nvcc.min_driver,
            "cuda_archs": [str(arch) for arch in selected],
            "left_out": left_out,
        },
    )


def _split(environment: Mapping[str, str], name: str) -> list[str]:
    return environment.get(name, "").split()


def _bindings_step() -> Step:
    """The only file that depends on Python: its object is for one Python version."""
    includes = [sysconfig.get_path("include"), pybind11.get_include(), "."]
    flags = [f"-I{folder}" for folder in includes]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return Step(CSRC / "bindings.cpp", f"bindings{suffix}.o", "cxx", flags)


def _cpu_steps(
    cxx: toolchain.Cxx, openmp: list[str], left_out: dict[str, str]
) -> tuple[list[Step], list[str]]:
    """The files of csrc/cpu, and the instruction sets that are compiled."""
    steps: list[Step] = []
    simd: list[str] = []
    here = toolchain.instruction_sets()
    refused: dict[str, str | None] = {name: cxx.accepts(flags) for name, flags in here.items()}
    for source in sorted((CSRC / "cpu").glob("*.cpp")):
        name = source.stem.rpartition("_")[2]
        flags = openmp
        if name in toolchain.ALL_INSTRUCTION_SETS:
            if name not in here:
                continue
            if refused[name] is not None:
                left_out[name] = f"the compiler refuses its flags ({refused[name]})"
                continue
            if name not in simd:
                simd.append(name)
            flags = [*openmp, *here[name]]
        steps.append(Step(source, f"cpu/{source.stem}.o", "cxx", flags))
    return steps, simd


def _cuda_steps(
    environment: Mapping[str, str],
    cxx: toolchain.Cxx,
    nvcc: toolchain.Nvcc,
    selected: list[archs.Arch],
) -> list[Step]:
    flags = [flag for arch in selected for flag in arch.flags()]
    flags += [f"-Xcompiler={flag}" for flag in NVCC_HOST_FLAGS]
    if nvcc.compresses:
        flags.append("--compress-mode=size")
    if environment.get("CXX") and len(cxx.command) == 1:
        flags.append(f"-ccbin={cxx.command[0]}")
    # nvcc's report of registers and spills, which ninja's rule stores beside the object.
    flags.append("-Xptxas=-v")
    at_once = 1 if any(arch.machine_code for arch in selected) else PTX_AT_ONCE
    return [_cuda_step(sources, flags) for sources in _cuda_units(at_once)]


def _cuda_units(at_once: int) -> Iterator[tuple[Path, ...]]:
    """The files of csrc/cuda; of those that instantiate one header, some at once."""
    folder = CSRC / "cuda"
    yield from ((source,) for source in sorted(folder.glob("*.cu")))
    sources = sorted((folder / "instantiations").glob("*.cu"))
    for _, group in groupby(sources, lambda source: source.read_text().partition("\n")[0]):
        same = tuple(group)
        yield from (same[i : i + at_once] for i in range(0, len(same), at_once))


def _cuda_step(sources: Sequence[Path], flags: list[str]) -> Step:
    """The files compiled as one: named by the last, which includes the others before it."""
    *others, last = sources
    included = [part for source in others for part in ("-include", str(source))]
    return Step(last, f"cuda/{last.stem}.o", "nvcc", [*flags, *included])


def _link_flags(cxx: toolchain.Cxx) -> list[str]:
    """Link a module that includes its own C++ library, so that an older one on the system does no
    harm."""
    if sys.platform == "darwin":
        return ["-undefined", "dynamic_lookup"]
    static = ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]
    return static if cxx.accepts(static) is None else []
