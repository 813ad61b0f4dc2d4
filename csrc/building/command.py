"""The build_ext command: the compiled module if possible, otherwise a note with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

from building import ninja_file, plan
from building.toolchain import Missing

# Beside the module's path, if there is no module: one line with the reason.
NOTE = "_not_compiled.txt"
BUILD_FOLDER = Path("build") / "csrc"
PURE = "SWIN_UMAMBA_PURE"


class BuildKernels(build_ext):  # type: ignore[misc]  # setuptools is untyped
    """Build the one extension with ninja; without a compiler, leave the note in its place."""

    def build_extension(self, ext: Extension) -> None:
        place = Path(self.get_ext_fullpath(ext.name))
        place.parent.mkdir(parents=True, exist_ok=True)
        self._build(place, place.parent / NOTE)

    def copy_extensions_to_source(self) -> None:
        """Move the result into the source tree, and remove what it replaces."""
        for ext in self.extensions:
            place = Path(self.get_ext_fullpath(ext.name))
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            for name in (place.name, NOTE):
                _replace(built.parent / name, place.parent / name)

    def _build(self, place: Path, note: Path) -> None:
        version = self.distribution.get_version()
        try:
            made = _make(version)
        except (Missing, subprocess.CalledProcessError, ValueError) as error:
            if isinstance(error, ValueError) or plan.cuda_switch(os.environ) == "1":
                raise CompileError(str(error)) from error
            reason = str(error) if isinstance(error, Missing) else "the C++ sources do not compile"
            _warn(f"installed WITHOUT its compiled kernels: {reason}")
            place.unlink(missing_ok=True)
            note.write_text(reason + "\n")
        else:
            _replace(made, place)
            note.unlink(missing_ok=True)


class BuildPure(build_py):  # type: ignore[misc]  # setuptools is untyped
    """Copy only the Python files, with a note about that instead of the compiled module."""

    def run(self) -> None:
        super().run()
        reason = (
            "this is the wheel for every system; "
            "pip install --no-binary swin-umamba swin-umamba builds the kernels"
        )
        place = Path(self.build_lib) / "swin_umamba_ops"
        for module in place.glob("_C.*"):
            module.unlink()
        (place / NOTE).write_text(reason + "\n")


def _make(version: str) -> Path:
    """Build the module; if CUDA fails and is not required, build without it."""
    planned = plan.make(os.environ, version)
    left_out = planned.facts["left_out"]
    assert isinstance(left_out, dict)
    for part, reason in left_out.items():
        _warn(f"built without {part}: {reason}")
    try:
        return ninja_file.build(planned, BUILD_FOLDER, os.environ)
    except subprocess.CalledProcessError:
        if planned.nvcc is None or plan.cuda_switch(os.environ) == "1":
            raise
    reason = f"the CUDA sources do not compile with nvcc {planned.facts['cuda_version']}"
    _warn(f"built WITHOUT its CUDA kernels: {reason}; see the errors above")
    planned = plan.make(os.environ, version, without_cuda=reason)
    return ninja_file.build(planned, BUILD_FOLDER, os.environ)


def _replace(source: Path, place: Path) -> None:
    """Replace the target by a copy of `source` atomically, or remove it if there is no source.

    Never overwritten in place: a running Python may have the old one mapped.
    """
    if not source.is_file():
        place.unlink(missing_ok=True)
        return
    fresh = place.with_name(place.name + ".new")
    shutil.copyfile(source, fresh)
    fresh.chmod(0o755 if source.suffix == ".so" else 0o644)
    fresh.replace(place)


def _warn(message: str) -> None:
    print(f"swin-umamba: {message}", file=sys.stderr, flush=True)
