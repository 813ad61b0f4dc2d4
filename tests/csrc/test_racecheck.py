"""Why compute-sanitizer's racecheck is not held against the scan kernels: the smallest program that
it gets wrong, staged_words.cu."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "csrc" / "cuda"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("nvcc", "compute-sanitizer"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    built = tmp_path_factory.mktemp("racecheck") / "staged_words"
    major, minor = torch.cuda.get_device_capability()
    arch = f"-arch=sm_{major}{minor}"
    source = str(HERE / "staged_words.cu")
    subprocess.run(
        ["nvcc", "-std=c++17", arch, f"-I{HEADERS}", source, "-o", str(built)], check=True
    )
    return built


@pytest.mark.parametrize(("warps", "reported"), [(1, False), (4, True)])
def test_every_word_is_right_whatever_racecheck_says(
    program: Path, warps: int, reported: bool
) -> None:
    subprocess.run([str(program), str(warps)], check=True)
    done = subprocess.run(
        ["compute-sanitizer", "--tool", "racecheck", str(program), str(warps)],
        capture_output=True,
        text=True,
    )
    summary = re.search(r"RACECHECK SUMMARY: (\d+) hazards?", done.stdout)
    if summary is None:
        pytest.skip(f"racecheck does not run here: {done.stdout.strip()[-300:]}")
    assert "\n0 words were not the expected ones" in "\n" + done.stdout
    # Where a later version reports nothing, its reports of the scan kernels want to be read again.
    assert (int(summary[1]) > 0) == reported, done.stdout
