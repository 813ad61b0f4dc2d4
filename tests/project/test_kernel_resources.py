"""CUDA kernels for common shapes do not spill registers, or only a few: from ptxas' own report."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from building import toolchain
from building.plan import CSRC, NVCC_FLAGS

pytestmark = pytest.mark.slow
BUILD = CSRC.parent / "build" / "csrc" / "cuda"
ARCH = "sm_90"
# The kernels of images at 16 states, those of rows of steps at as many, and those that every other
# input takes at 1 to 16.
FILES = [
    *("image_n16_float16", "image_n16_bfloat16", "image_n16_float32"),
    *("sequence_n16_float16", "sequence_n16_bfloat16", "sequence_n16_float32"),
    *("strided_n1", "strided_n4", "strided_n8", "strided_n16"),
    *("one_state_float16", "one_state_bfloat16", "one_state_float32"),
    *("one_state_float16_ranks", "one_state_bfloat16_ranks"),
]
# Bytes of a lane that may be spilled, by a part of the kernel's name: a few addresses that a tile
# needs once.
ALLOWED = {"one_state_": 32}

_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def _source(name: str) -> Path:
    return CSRC / "cuda" / "instantiations" / f"{name}.cu"


def _kept(name: str) -> str | None:
    """The report of the last build, if it belongs to the current sources."""
    log, built = BUILD / f"{name}.ptxas.log", BUILD / f"{name}.o"
    if not (log.is_file() and built.is_file()):
        return None
    sources = [_source(name), *(CSRC / "cuda").glob("*h")]
    if max(source.stat().st_mtime for source in sources) > log.stat().st_mtime:
        return None
    text = log.read_text()
    return text if f"for '{ARCH}'" in text else None


def _compiled(nvcc: str, name: str, folder: Path) -> str:
    options = [*NVCC_FLAGS, f"-arch={ARCH}", "-Xptxas=-v", "-cubin"]
    source, out = _source(name), folder / f"{name}.cubin"
    done = subprocess.run(
        [nvcc, *options, str(source), "-o", str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What ptxas said of each file."""
    found = {name: text for name in FILES if (text := _kept(name)) is not None}
    missing = [name for name in FILES if name not in found]
    if missing:
        if shutil.which("nvcc") is None:
            pytest.skip("needs nvcc")
        nvcc = toolchain.find_nvcc({"PATH": str(Path(shutil.which("nvcc") or "").parent)})
        if (9, 0) not in nvcc.capabilities:
            pytest.skip(f"this nvcc does not compile for {ARCH}")
        folder = tmp_path_factory.mktemp("cubins")
        with ThreadPoolExecutor(2) as pool:
            texts = pool.map(lambda name: _compiled(nvcc.path, name, folder), missing)
        found |= dict(zip(missing, texts, strict=True))
    return found


@pytest.mark.parametrize("name", FILES)
def test_no_kernel_spills(reports: dict[str, str], name: str) -> None:
    kernels = [found for found in _KERNEL.finditer(reports[name]) if found["arch"] == ARCH]
    assert len(kernels) >= 3, "forward, backward and the pass before them"
    for kernel in kernels:
        bytes_allowed = max(n for part, n in {"": 0, **ALLOWED}.items() if part in kernel["name"])
        spilled = {key: int(kernel[key]) for key in ("stack", "stores")}
        assert max(spilled.values()) <= bytes_allowed, (kernel["name"], spilled)
        assert bytes_allowed or int(kernel["loads"]) == 0, kernel["name"]
