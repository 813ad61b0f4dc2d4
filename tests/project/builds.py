"""Builds of a copy of the sources, in environments that lack one tool or another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NEEDED = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "csrc",
    "swin_umamba",
    "swin_umamba_ops",
)
# A script in place of nvcc that knows its options but fails to compile.
BROKEN_NVCC = """\
#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release 12.8, V12.8.0" ;;
  --list-gpu-arch) echo compute_80; echo compute_90 ;;
  --help) echo "--compress-mode" ;;
  *) echo "internal error: assertion failed" >&2; exit 2 ;;
esac
"""
# A compiler without OpenMP and AVX-512.
OLD_COMPILER = """\
#!/bin/sh
for flag in "$@"; do
  case "$flag" in
    -fopenmp|-mavx512*) echo "error: unrecognized option '$flag'" >&2; exit 1 ;;
  esac
done
exec c++ "$@"
"""
_BUILT = shutil.ignore_patterns("__pycache__", "*.so", "_not_compiled.txt")


def copy_sources(folder: Path) -> Path:
    """Everything a build needs, without leftovers of earlier builds."""
    folder.mkdir()
    for name in _NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=_BUILT)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def without_editable_installs(folder: Path) -> Path:
    """A PYTHONPATH folder whose startup file removes editable installs from the import path.

    Their finder would provide a compiled module that the installation under test lacks.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [\n"
        "    f for f in sys.meta_path\n"
        "    if not getattr(f, '__module__', '').startswith('__editable__')\n"
        "]\n"
    )
    return folder


def environment(scratch: Path, **changes: str) -> dict[str, str]:
    """The environment without nvcc and variables that affect builds, plus changes."""
    steering = ("SWIN_UMAMBA_", "CUDA_", "TORCH_", "PIP_CONFIG", "PIP_QUIET", "MAX_JOBS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    for name in ("CC", "CXX", "CXXFLAGS", "LDFLAGS", "PYTHONPATH"):
        kept.pop(name, None)
    kept["PATH"] = _path_without("nvcc", kept.get("PATH", os.defpath), scratch)
    # Only whether it builds matters, not how fast the result is.
    return kept | {"CXXFLAGS": "-O0"} | changes


def _path_without(tool: str, path: str, scratch: Path) -> str:
    """PATH with the folder of a tool replaced by one of links to everything else in it."""
    folders = []
    for i, folder in enumerate(path.split(os.pathsep)):
        if folder and (Path(folder) / tool).exists():
            links = scratch / f"path{i}"
            if not links.is_dir():
                links.mkdir(parents=True)
                for entry in Path(folder).iterdir():
                    if entry.name != tool:
                        (links / entry.name).symlink_to(entry.resolve())
            folder = str(links)
        folders.append(folder)
    return os.pathsep.join(folders)


def run(
    arguments: list[str], folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run this Python; returns output and errors as one text."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def make_wheel(
    sources: Path, out: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """The output and exit status of `pip wheel`; the wheel is in `out`."""
    wheel = ["-m", "pip", "wheel", "-v", "--no-index", "--no-build-isolation", "--no-deps"]
    return run([*wheel, "-w", str(out), "."], sources, variables)


def unpack(out: Path) -> Path:
    """Unpack the one wheel in a folder: the folder to import it from."""
    (wheel,) = out.glob("*.whl")
    place = out / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place
