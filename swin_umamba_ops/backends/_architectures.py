"""Which compiled code a GPU runs: machine code, or PTX that its driver compiles."""

from __future__ import annotations

import re
from collections.abc import Iterable

Capability = tuple[int, int]
_ENTRY = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX|-virtual)?")


def code_for(capability: Capability, built: Iterable[str]) -> Capability | None:
    """The architecture of the code that a GPU of this compute capability runs; None if there is
    none.

    built: architectures as `build_info()` lists them, such as "9.0", "12.0+PTX" and "8.0-virtual".
    """
    machine, ptx = _targets(capability, built)
    return max(machine or ptx, default=None)  # the driver prefers machine code if there is any


def runs_ptx(capability: Capability, built: Iterable[str]) -> bool:
    """Whether the driver has to compile code for such a GPU, because only PTX matches."""
    machine, ptx = _targets(capability, built)
    return bool(ptx and not machine)


def _targets(
    capability: Capability, built: Iterable[str]
) -> tuple[list[Capability], list[Capability]]:
    """The architectures of machine code and of PTX that a GPU can run.

    Machine code runs on the same major version from its minor version on ("a": only on that one),
    PTX on everything from its version on.
    """
    machine: list[Capability] = []
    ptx: list[Capability] = []
    for entry in built:
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} is not a GPU architecture")
        major, minor, suffix, ending = found.groups()
        target = (int(major), int(minor))
        runs = target[0] == capability[0] and target <= capability
        if suffix == "a":
            runs = target == capability
        if ending != "-virtual" and runs:
            machine.append(target)
        later = runs if suffix else target <= capability
        if ending is not None and later:
            ptx.append(target)
    return machine, ptx


def advice(capability: Capability, built: Iterable[str]) -> str:
    """Why a GPU is not supported, and what to do."""
    own = f"{capability[0]}.{capability[1]}"
    return (
        f"the kernels were built for {', '.join(built)}, this GPU has compute capability {own}: "
        f"install again with SWIN_UMAMBA_CUDA_ARCHS={own}"
    )
