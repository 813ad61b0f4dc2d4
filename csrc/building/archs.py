"""The GPU architectures for which the CUDA kernels are compiled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

# The first of these variables that is set names the architectures.
VARIABLES = ("SWIN_UMAMBA_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST")
# The word for machine code for every generation: code for a major version runs on its later minor
# versions.
ALL = "all"
GENERATIONS = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
OLDEST = (7, 5)
# Without named architectures and without a visible GPU: PTX for the oldest one supported by the
# fast kernels.
PORTABLE = (8, 0)
VIRTUAL_NOTE = (
    "no GPU is visible here, so the CUDA kernels are PTX, which the driver compiles at their first "
    "use; for machine code, install again with SWIN_UMAMBA_CUDA_ARCHS set to your GPU's compute "
    f"capability, such as 9.0, or to {ALL}"
)

_ENTRY = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX|-virtual)?", re.IGNORECASE)


@dataclass(frozen=True)
class Arch:
    """One architecture: machine code for it, PTX for it and later ones, or both."""

    major: int
    minor: int
    suffix: str = ""  # "a" or "f": features of that architecture or family alone
    ptx: bool = False
    machine_code: bool = True

    @property
    def number(self) -> str:
        return f"{self.major}{self.minor}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.suffix}" + self._ending()

    def _ending(self) -> str:
        if not self.machine_code:
            return "-virtual"
        return "+PTX" if self.ptx else ""

    def flags(self) -> list[str]:
        """The flags of nvcc for it."""
        codes = [f"sm_{self.number}"] if self.machine_code else []
        codes += [f"compute_{self.number}"] if self.ptx else []
        return [f"-gencode=arch=compute_{self.number},code={code}" for code in codes]


def parse(text: str) -> list[Arch]:
    """Read a list such as "8.0;9.0a 12.0+PTX", separated by semicolons, commas or blanks.

    "8.0-virtual" is PTX without machine code; "all" is every generation, and PTX of the newest.
    ValueError names an entry that is not understood or is older than the kernels support.
    """
    archs: list[Arch] = []
    if text.strip().lower() == ALL:
        *older, newest = (Arch(*generation) for generation in GENERATIONS)
        return [*older, replace(newest, ptx=True)]
    for entry in re.split(r"[;,\s]+", text.strip(" ;,\t\n")):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"{entry!r} is not a GPU architecture; expected entries such as 8.0, 9.0a, "
                f"12.0+PTX or 8.0-virtual, or {ALL}"
            )
        major, minor, suffix, ptx = match.groups()
        virtual = (ptx or "").startswith("-")
        arch = Arch(int(major), int(minor), suffix.lower(), ptx is not None, not virtual)
        if (arch.major, arch.minor) < OLDEST:
            raise ValueError(f"{entry!r} is too old: the kernels need 7.5 or newer")
        if arch not in archs:
            archs.append(arch)
    return archs


def select(
    environment: Mapping[str, str],
    seen: Iterable[tuple[int, int]],
    supported: Iterable[tuple[int, int]],
) -> list[Arch]:
    """The named architectures, else those of the visible GPUs, else PTX only.

    seen: compute capabilities of the visible GPUs; supported: those that nvcc compiles for. A GPU
    too new for nvcc gets PTX of the newest architecture that nvcc knows. ValueError if a named one
    is unknown to nvcc; with "all", unknown ones are skipped.
    """
    known = set(supported)
    for variable in VARIABLES:
        named = environment.get(variable, "").strip()
        if not named:
            continue
        try:
            archs = parse(named)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
        if named.lower() == ALL:
            *older, newest = [arch for arch in archs if (arch.major, arch.minor) in known]
            return [*older, replace(newest, ptx=True)]
        for arch in archs:
            if (arch.major, arch.minor) not in known:
                raise ValueError(f"{variable}: this nvcc does not compile for {arch}")
        return archs
    usable = sorted(capability for capability in known if capability >= OLDEST)
    if not usable:
        raise ValueError("this nvcc compiles for none of the architectures that the kernels serve")
    here = {capability for capability in seen if capability >= OLDEST}
    archs = [Arch(*capability) for capability in sorted(here & known)]
    if here - known:
        archs = [arch for arch in archs if (arch.major, arch.minor) != usable[-1]]
        archs.append(Arch(*usable[-1], ptx=True))
    if archs:
        return archs
    portable = next((capability for capability in usable if capability >= PORTABLE), usable[-1])
    return [Arch(*portable, ptx=True, machine_code=False)]
