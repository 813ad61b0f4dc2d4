"""The environment that produced a result: versions, devices, commit."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from swin_umamba.common.jsons import load_object
from swin_umamba_ops import __main__ as ops

PACKAGES = ("monai", "numpy", "scipy", "safetensors")
CHECKOUT = Path(__file__).parents[2]
"""The folder that holds this package: of a checkout, if it is not installed elsewhere."""

PROCESSES = "processes"
"""Key of the number of processes that trained together."""


def describe(processes: int | None = None) -> dict[str, str]:
    """Facts by name, ready for display; the time is UTC.

    processes: number of processes of a training, if it is one.
    """
    together = {} if processes is None else {PROCESSES: str(processes)}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **dict(ops.versions()),
        **{name: _version(name) for name in PACKAGES},
        "commit": commit(),
        **dict(ops.devices()),
        **together,
    }


def describe_json(processes: int | None = None) -> str:
    """`describe` as a JSON object."""
    return json.dumps(describe(processes), indent=2) + "\n"


def read_environment(path: Path) -> dict[str, str]:
    """Read the output of `describe_json`. Raises UserError, naming the file, if it is damaged."""
    facts = load_object(path, "an environment")
    return {name: str(value) for name, value in facts.items()}


def commit(folder: Path = CHECKOUT) -> str:
    """The commit of the checkout, marked if files are modified; "unknown" outside of a checkout."""
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return "unknown"

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([git, *words], cwd=folder, capture_output=True, text=True)

    head = said("rev-parse", "HEAD")
    if head.returncode != 0:
        return "unknown"
    changed = said("status", "--porcelain", "--untracked-files=no").stdout.strip()
    return head.stdout.strip() + (" with changes" if changed else "")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
