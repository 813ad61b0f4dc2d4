"""On systems without fcntl and the compiled module, such as Windows, the commands work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# What runs before anything else: the modules are absent, and so is what Windows' os lacks.
WITHOUT = """
import importlib.abc, os, signal, sys


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "pwd", "swin_umamba_ops._C"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


for name in ("fcntl", "resource", "pwd"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in ("sched_getaffinity", "getuid", "geteuid"):
    if hasattr(os, name):
        delattr(os, name)

flush = os.fsync


def fsync(file):
    if not writable(file):
        raise OSError(9, "Bad file descriptor")
    flush(file)


def writable(file):
    try:
        os.write(file, b"")
    except OSError:
        return False
    return True


os.fsync = fsync
"""
TINY = '{"dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "d_state": 2}'


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(5):
        mask = np.zeros((40, 48), np.uint8)
        mask[8:24, 8 : 16 + 2 * i] = 1
        image = (100 * mask + rng.integers(0, 50, mask.shape)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / f"data/masks/{i}.png")
        Image.fromarray(image).save(tmp_path / f"data/images/{i}.png")
    return tmp_path / "data"


def _run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(WITHOUT + code)
    variables = {**os.environ, "SWIN_UMAMBA_CACHE": str(folder / "cache"), "USERNAME": "anyone"}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=variables, timeout=300
    )


@pytest.mark.slow
def test_training_and_prediction_work(dataset: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    words = f"""
from swin_umamba.cli import app

def command(*words):
    try:
        app([str(word) for word in words])
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)

command("train", {str(dataset)!r}, {str(run)!r}, "--iterations", 2, "--patch-size", 32, 32,
        "--device", "cpu", "--set", 'model_options={TINY}', "--set", "tensorboard=false")
command("predict", {str(run)!r}, {str(dataset / "images")!r}, {str(out)!r}, "--device", "cpu")
command("evaluate", {str(out)!r}, {str(dataset)!r})

import swin_umamba_ops
assert swin_umamba_ops.available_backends()["cpu"] is not None
assert "fcntl" not in __import__("sys").modules
"""
    done = _run(tmp_path, words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("*.png"))) == 5
    assert (run / "best.safetensors").is_file()


@pytest.mark.slow
def test_the_operators_work_and_every_module_imports(tmp_path: Path) -> None:
    code = """
import pkgutil, torch, swin_umamba, swin_umamba_ops as ops
from swin_umamba.common.devices import usable_cores
assert usable_cores() == os.cpu_count()
x = torch.randn(1, 4, 3, 5, requires_grad=True)
rest = [torch.randn(s) for s in ((4, 6, 4), (4, 4, 2), (4, 4), (16, 2), (16,))]
ops.ss2d(x, *rest).sum().backward()
assert x.grad.isfinite().all()
for package in (swin_umamba, ops):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        skipped = ("triton", "nnunet.", "__main__", "_C")
        if not any(word in module.name for word in skipped):
            __import__(module.name)
"""
    done = _run(tmp_path, code)
    assert done.returncode == 0, done.stdout + done.stderr
