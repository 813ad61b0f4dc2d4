"""Imports only go downwards; the ops need only torch. Checked in the sources, without importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Besides the standard library and the ops themselves.
OPS_MAY_IMPORT = {"torch", "triton"}
# By layer: a module imports nothing from a layer before its own. The longest prefix decides.
OPS_LAYERS = [
    {"__main__"},
    {""},
    {"vmamba"},
    {"mamba_ssm"},
    {"functional", "fused", "state_update"},
    {"resolving", "padding"},
    {"ops"},
    {"backends"},
    {"backends.triton_kernels"},
    {
        "autocast",
        "checks",
        "flops",
        "inputs",
        "numerics",
        "scan_order",
        "torch_private",
        "_version",
    },
]
# Likewise of the models' package, from the ground up: a module imports none of a later layer.
LAYERS = [
    {"errors", "_moved"},
    {"common"},
    {"drawing"},
    {"losses", "metrics"},
    {"weights", "models"},
    {"data"},
    {"runs"},
    {"inference"},
    {"export"},
    {"evaluate"},
    {"loop"},
    {"train", "pretrain"},
    {"report", "nnunet", "demo"},
    {"cli"},
    {""},
]


def _sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere in it; of a package's modules, each by itself."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if _is_module(full) else node.module


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _part(module: str) -> str:
    """The name below the package: that of "swin_umamba_ops.backends.cpu" is "backends"."""
    return [*module.split("."), ""][1]


def _layer(module: str) -> int:
    below = module.removeprefix("swin_umamba_ops").removeprefix(".")
    names = [below, ".".join(below.split(".")[:2]), below.split(".")[0]]
    return next(i for name in names for i, layer in enumerate(OPS_LAYERS) if name in layer)


def _place(module: str) -> int:
    (found,) = [i for i, layer in enumerate(LAYERS) if _part(module) in layer]
    return found


def _for_types_alone(path: Path, name: str) -> bool:
    """Whether every import of a name in a file is for type checkers."""
    return name in _named_by_imports(path, checked=True) - _named_by_imports(path, checked=False)


@cache
def _named_by_imports(path: Path, *, checked: bool) -> frozenset[str]:
    """What a file imports from, for type checkers alone or for all."""
    for_checkers = {
        id(inner)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return frozenset(
        name
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and (id(node) in for_checkers) == checked
        for name in (str(node.module), f"{node.module}.{node.names[0].name}")
    )


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", _sources("swin_umamba_ops"), ids=_module)
def test_ops_need_torch_alone(path: Path) -> None:
    for name in _imported(path):
        top = name.split(".")[0]
        known = top in sys.stdlib_module_names or top in OPS_MAY_IMPORT
        assert known or top == "swin_umamba_ops", f"{path.name} imports {name}"


@pytest.mark.parametrize("path", _sources("swin_umamba_ops"), ids=_module)
def test_ops_import_one_way(path: Path) -> None:
    own = _module(path)
    for name in _imported(path):
        if name.split(".")[0] == "swin_umamba_ops" and own != "swin_umamba_ops.__main__":
            assert _layer(name) >= _layer(own), f"{own} imports {name}"


def test_the_ops_layers_are_short_files() -> None:
    for path in _sources("swin_umamba_ops"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


@pytest.mark.parametrize("path", _sources("swin_umamba"), ids=_module)
def test_models_use_what_ops_export(path: Path) -> None:
    for name in _imported(path):
        if name.split(".")[0] == "swin_umamba_ops":
            assert name in ("swin_umamba_ops", "swin_umamba_ops.__main__"), f"{path.name}: {name}"


@pytest.mark.parametrize("path", _sources("swin_umamba"), ids=_module)
def test_parts_import_one_way(path: Path) -> None:
    own = _module(path)
    for name in _imported(path):
        assert name.split(".")[0] not in ("benchmarks", "tests")
        if name.split(".")[0] == "swin_umamba" and not _for_types_alone(path, name):
            assert _place(name) <= _place(own), f"{own} imports {name}"


def test_modules_import_in_no_circle() -> None:
    needs = {
        _module(path): {
            name
            for name in _imported(path)
            if name.split(".")[0] == "swin_umamba" and not _for_types_alone(path, name)
        }
        for path in _sources("swin_umamba")
    }
    with_packages = {name: found - {name} for name, found in needs.items()}
    tuple(TopologicalSorter(with_packages).static_order())


def test_every_file_has_its_layer() -> None:
    for path in _sources("swin_umamba_ops"):
        _layer(_module(path))
    for path in _sources("swin_umamba"):
        _place(_module(path))
    for part in set().union(*LAYERS) - {""}:
        assert _is_module(f"swin_umamba.{part}"), part


def test_importing_the_ops_loads_nothing_heavy() -> None:
    code = (
        "import sys, torch, torch.utils.flop_counter\n"  # the latter loads Triton where it is
        "before = set(sys.modules)\n"
        "import swin_umamba_ops\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert not loaded & {"swin_umamba", "monai", "numpy", "triton", "einops", "matplotlib"}


def test_no_other_class_is_named_like_an_exported_one() -> None:
    """Names in the `__all__` of a package's __init__.py are those that people know a class by."""
    exported: set[str] = set()
    defined: dict[str, list[str]] = {}
    for path in sorted((ROOT / "swin_umamba").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
            elif (
                isinstance(node, ast.Assign)
                and path.name == "__init__.py"
                and ast.unparse(node.targets[0]) == "__all__"
            ):
                exported.update(ast.literal_eval(node.value))
    twice = {name: places for name, places in defined.items() if len(places) > 1}
    assert not twice.keys() & exported, {name: twice[name] for name in twice.keys() & exported}
    assert "Run" in exported & defined.keys()


def test_commands_start_without_what_few_need() -> None:
    """MONAI, for networks to compare with, takes as long to import as all else together; FSDP's
    modules as long as torch."""
    code = (
        "import sys\n"
        "import swin_umamba.train, swin_umamba.inference.files, swin_umamba.report\n"
        "rare = {'monai', 'torch.distributed.fsdp', 'scipy.ndimage'}\n"
        "print(*sorted(rare & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
