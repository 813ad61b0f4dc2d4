"""Builds the compiled module; everything else about the package stands in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc"))
from building.command import PURE, BuildKernels, BuildPure

if os.environ.get(PURE) == "1":  # a wheel for every system
    setup(cmdclass={"build_py": BuildPure})
else:
    setup(
        ext_modules=[Extension("swin_umamba_ops._C", sources=[])],
        cmdclass={"build_ext": BuildKernels},
    )
