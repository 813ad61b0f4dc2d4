"""`python -m swin_umamba_ops`: versions, devices, build information, and which backends work."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterable

import torch

from swin_umamba_ops import __version__, available_backends
from swin_umamba_ops.backends import _extension


def _triton_version() -> str:
    if importlib.util.find_spec("triton") is None:
        return "not installed"
    return importlib.metadata.version("triton")


def _cuda_runtime() -> str:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return "none: torch was built for CPUs only"


def _driver() -> str:
    compiled, _ = _extension.load()
    cuda = getattr(compiled, "cuda", None)
    version = 0 if cuda is None else cuda.driver_version()
    if version:
        return f"supports up to CUDA {version // 1000}.{version % 1000 // 10}"
    return "usable" if torch.cuda.is_available() else "no usable GPU"


def versions() -> list[tuple[str, str]]:
    """Versions: the package, Python, torch, Triton, the CUDA runtime and driver."""
    return [
        ("swin_umamba_ops", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", torch.__version__),
        ("triton", _triton_version()),
        ("torch's GPU runtime", _cuda_runtime()),
        ("GPU driver", _driver()),
    ]


def devices() -> list[tuple[str, str]]:
    """The processor and every GPU visible to torch."""
    capability = torch.backends.cpu.get_cpu_capability()
    rows = [("cpu", f"{platform.machine()}, {torch.get_num_threads()} threads, {capability}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append(
            (
                f"cuda:{index}",
                f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, "
                f"compute capability {properties.major}.{properties.minor}",
            )
        )
    return rows


def build() -> list[tuple[str, str]]:
    """How the compiled extension was built, or that it is missing."""
    extension, reason = _extension.load()
    if extension is None:
        return [("extension", f"none: {reason}")]
    return [(name, _told(value)) for name, value in extension.build_info().items()]


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_told(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return str(value) or "none"


def backends() -> list[tuple[str, str]]:
    """Every backend, fastest first, and the reason if it is unusable."""
    return [
        (name, "usable" if reason is None else f"no: {reason}")
        for name, reason in available_backends().items()
    ]


def report() -> str:
    """The whole report as plain text in aligned columns."""
    sections = {
        "Versions": versions(),
        "Devices": devices(),
        "Build": build(),
        "Backends, fastest first": backends(),
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    return "\n\n".join(_section(title, rows, width) for title, rows in sections.items())


def _section(title: str, rows: Iterable[tuple[str, str]], width: int) -> str:
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


if __name__ == "__main__":
    print(report())
