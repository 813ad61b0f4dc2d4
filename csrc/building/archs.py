"""Which GPU architectures the CUDA kernels are compiled for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# The first of these that is set names the architectures.
VARIABLES = ("SWIN_UMAMBA_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST")
# With none named and no GPU in sight: machine code of a major version runs on its later minor ones.
DEFAULT = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
OLDEST = (7, 5)

_ENTRY = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?", re.IGNORECASE)


@dataclass(frozen=True)
class Arch:
    """One architecture: machine code for it and, with `ptx`, code for later ones too."""

    major: int
    minor: int
    suffix: str = ""  # "a" or "f": features of that architecture or family alone
    ptx: bool = False

    @property
    def number(self) -> str:
        return f"{self.major}{self.minor}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.suffix}" + ("+PTX" if self.ptx else "")

    def flags(self) -> list[str]:
        """What nvcc is told."""
        codes = [f"sm_{self.number}"] + ([f"compute_{self.number}"] if self.ptx else [])
        return [f"-gencode=arch=compute_{self.number},code={code}" for code in codes]


def parse(text: str) -> list[Arch]:
    """Read a list such as "8.0;9.0a 12.0+PTX", separated by semicolons, commas or blanks.

    ValueError names an entry that is not understood or is older than the kernels serve.
    """
    archs: list[Arch] = []
    for entry in re.split(r"[;,\s]+", text.strip(" ;,\t\n")):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"{entry!r} is no GPU architecture; expected entries such as 8.0, 9.0a or 12.0+PTX"
            )
        major, minor, suffix, ptx = match.groups()
        arch = Arch(int(major), int(minor), suffix.lower(), ptx is not None)
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
    """The architectures that are named, else those of the GPUs seen, else the default list.

    seen: compute capabilities of the GPUs here; supported: those that nvcc compiles for. Of the
    GPUs seen, one too new for nvcc is served by PTX of the newest that it knows. ValueError if a
    named one is unknown to nvcc.
    """
    known = set(supported)
    for variable in VARIABLES:
        if not environment.get(variable, "").strip():
            continue
        try:
            archs = parse(environment[variable])
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
        for arch in archs:
            if (arch.major, arch.minor) not in known:
                raise ValueError(f"{variable}: this nvcc does not compile for {arch}")
        return archs
    here = {capability for capability in seen if capability >= OLDEST}
    exact = sorted(here & known)
    if here and here == set(exact):
        return [Arch(*capability) for capability in exact]
    archs = [Arch(*capability) for capability in sorted({*exact, *DEFAULT} & known)]
    if not archs:
        raise ValueError("this nvcc compiles for none of the architectures that the kernels serve")
    newest = archs.pop()
    return [*archs, Arch(newest.major, newest.minor, ptx=True)]
