"""The environment of a measurement: device, driver, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

import swin_umamba_ops as ops

_ROOT = Path(__file__).resolve().parents[2]


def _output_of(*command: str, folder: Path = _ROOT) -> str | None:
    """The output of a command, or None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def commit(folder: Path = _ROOT) -> str:
    """The commit of a folder, marked if there are changes.

    A file COMMIT in the folder takes precedence; without it and outside of git it is "unknown".
    """
    recorded = folder / "COMMIT"
    if recorded.exists():  # a copy without its git folder, perhaps inside another repository
        return recorded.read_text().strip()
    head = _output_of("git", "rev-parse", "HEAD", folder=folder)
    if head is None:
        return "unknown"
    changes = _output_of("git", "status", "--porcelain", "--untracked-files=no", folder=folder)
    return f"{head}+changes" if changes else head


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    version = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return version.splitlines()[0] if version else None  # a line for each GPU


def describe(device: torch.device, tree: str | None = None) -> dict[str, object]:
    """Everything needed to judge or repeat a measurement.

    tree: the commit, if this tree was copied without its git folder.
    """
    facts: dict[str, object] = {
        "device": _cpu_name(),
        "driver": None,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "commit": tree or commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "versions": {name: _version(name) for name in ("triton", "mamba-ssm", "numpy")},
        "swin_umamba_ops": ops.__version__,
        "backends": ops.available_backends(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
        }
    return facts
