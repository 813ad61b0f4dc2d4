"""Imports run one way, the compiled core is free of torch, and files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPS = sorted((ROOT / "swin_umamba_ops").rglob("*.py"))
OURS = sorted((ROOT / "swin_umamba").rglob("*.py"))
MODELS = [path for path in OURS if "models" in path.parts] + [
    ROOT / "swin_umamba" / name
    for name in ("ss2d.py", "layers.py", "encoder.py", "decoder.py", "drop_path.py")
]
CORE = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".cpp", ".cu", ".h", ".cuh"}]
MOST_LINES = 500


def _imports(path: Path) -> set[str]:
    """Full names of the modules and of what is taken from them, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("path", OPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_ops_need_torch_alone(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "torch", "swin_umamba_ops"}
    if "triton_kernels" in path.parts or path.name == "triton.py":
        allowed.add("triton")
    assert _roots(path) <= allowed


def test_models_know_nothing_of_training() -> None:
    above = ("train", "data", "losses", "metrics", "predict", "cli", "demo", "plots")
    for path in MODELS:
        taken = {name.split(".")[1] for name in _imports(path) if name.startswith("swin_umamba.")}
        assert not taken & set(above), path


def test_package_uses_what_ops_export() -> None:
    report = {"swin_umamba_ops.__main__"}  # which `doctor` shows in colour
    exported = {"swin_umamba_ops"} | {
        f"swin_umamba_ops.{name}" for name in __import__("swin_umamba_ops").__all__
    }
    for path in OURS:
        taken = {name for name in _imports(path) if name.partition(".")[0] == "swin_umamba_ops"}
        assert taken <= exported | report, path


def test_core_includes_nothing_of_torch() -> None:
    assert CORE
    for path in CORE:
        for header in re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8")):
            assert not re.match(r"(torch|ATen|c10)\b", header), path
            if path.name != "bindings.cpp":
                assert not re.match(r"(pybind11|Python\.h)\b", header), path


def test_ops_import_with_torch_alone() -> None:
    """In a process where the rest of the packages cannot be imported."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"swin_umamba", "monai", "einops", "rich", "typer",
                                      "safetensors", "huggingface_hub", "matplotlib"}:
            raise AssertionError(name)
sys.meta_path.insert(0, Refuse())
import swin_umamba_ops
print(swin_umamba_ops.available_backends()["reference"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "None"), done.stderr


def _sources() -> list[Path]:
    folders = ("swin_umamba", "swin_umamba_ops", "benchmarks", "tests", "csrc")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [path for path in found if path.suffix in {".py", ".cpp", ".h", ".cu", ".cuh"}]


def test_files_stay_small() -> None:
    long = [path for path in _sources() if len(path.read_text("utf-8").splitlines()) > MOST_LINES]
    assert not long
