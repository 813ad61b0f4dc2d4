"""Which backend is taken, what is said about the others, and the report on the machine."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import swin_umamba_ops as ops
from swin_umamba_ops import backends
from swin_umamba_ops.__main__ import report

CPU = torch.device("cpu")


def _install(
    monkeypatch: pytest.MonkeyPatch, unusable: dict[str, str], unsupported: dict[str, str]
) -> None:
    """Replace all modules of kernels by ones that say of themselves what the two tables tell."""
    monkeypatch.setattr(backends, "why_not_loaded", unusable.get)
    monkeypatch.setattr(
        backends,
        "load",
        lambda name: SimpleNamespace(why_unsupported=lambda *_: unsupported.get(name)),
    )


def _name(
    backend: str, device: torch.device, dtype: torch.dtype = torch.float32, op: str = "ss2d"
) -> str:
    return backends.resolve(op, backend, device, dtype, 16).name


def test_every_backend_is_listed_fastest_first() -> None:
    available = ops.available_backends()
    assert list(available) == ["cuda", "triton", "cpu", "pytorch", "export", "reference"]
    assert available["pytorch"] is None
    assert available["reference"] is None
    for reason in available.values():
        assert reason is None or (isinstance(reason, str) and reason)


@pytest.mark.usefixtures("fresh_registry")
def test_auto_takes_the_fastest_and_keeps_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _name("auto", CPU) == "cpu"
        assert _name("auto", torch.device("cuda:1")) == "cuda"
        assert _name("auto", torch.device("mps")) == "pytorch"


@pytest.mark.usefixtures("fresh_registry")
def test_auto_falls_back_and_says_once_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"cuda": "no nvcc"}, {"triton": "N is odd"})
    device = torch.device("cuda:0")
    with pytest.warns(RuntimeWarning, match="'pytorch' on cuda:0") as caught:
        assert _name("auto", device) == "pytorch"
    assert len(caught) == 1
    assert "'cuda' (no nvcc)" in str(caught[0].message)
    assert "'triton' (N is odd)" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _name("auto", device)
        _name("auto", device, torch.float16)


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("name", ["cuda", "triton", "cpu", "pytorch"])
def test_a_named_backend_never_falls_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {name: "it is broken"}, {})
    with pytest.raises(RuntimeError, match=f"backend '{name}' does not support .*: it is broken"):
        _name(name, CPU)
    _install(monkeypatch, {}, {name: "not this N"})
    with pytest.raises(RuntimeError, match=f"backend '{name}' does not support .*: not this N"):
        _name(name, CPU)
    _install(monkeypatch, {}, {})
    assert _name(name, CPU) == name


@pytest.mark.usefixtures("fresh_registry")
def test_a_missing_module_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backends.Backend("absent", None, {"ss2d": "absent"})
    monkeypatch.setattr(backends, "BACKENDS", {row.name: row})
    reason = backends.why_unusable(row.name)
    assert reason == "this installation of swin_umamba_ops has no absent backend"
    with pytest.raises(RuntimeError, match=r"no backend supports cpu.*absent"):
        _name("auto", CPU)


@pytest.mark.usefixtures("fresh_registry")
def test_a_module_that_does_not_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes Python refuse the import.
    monkeypatch.setitem(sys.modules, "swin_umamba_ops.backends.pytorch", None)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    reason = backends.why_unusable("pytorch")
    assert reason is not None
    assert reason.startswith("cannot import it: ModuleNotFoundError: ")


GPU = torch.device("cuda:0")


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("op", backends.FUSED)
def test_fused_ops_are_served_by_the_same_table(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _name("auto", GPU, op=op) == "triton"
        assert _name("auto", CPU, op=op) == "pytorch"
        for name in ("triton", "pytorch", "export", "reference"):
            assert _name(name, GPU, op=op) == name
    for name in ("cuda", "cpu"):
        with pytest.raises(
            RuntimeError, match=f"backend '{name}' does not support .* it has no {op}"
        ):
            _name(name, GPU, op=op)


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("op", backends.FUSED)
def test_fused_ops_fall_back_with_the_reason(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"triton": "it is broken"}, {})
    with pytest.warns(RuntimeWarning, match=r"'pytorch' on cuda:0; not 'triton' \(it is broken\)"):
        assert _name("auto", GPU, op=op) == "pytorch"
    with pytest.raises(RuntimeError, match="it is broken"):
        _name("triton", GPU, op=op)
    assert _name("pytorch", GPU, op=op) == "pytorch"


def test_every_op_of_every_backend_is_there() -> None:
    """Each row's modules have the functions that ops call, and each formula can be called."""
    for backend in backends.BACKENDS.values():
        assert not backend.kernels.keys() & backend.formulas.keys()
        assert all(callable(formula) for formula in backend.formulas.values())
        for op, module in backend.kernels.items():
            if backend.name == "triton" and importlib.util.find_spec("triton") is None:
                continue
            found = backends.load(module)
            names = [f"{op}_forward", f"{op}_backward", "why_unusable", "why_unsupported"]
            if op in backends.SCANS:
                names.append("chunk_length")
            for name in names:
                assert hasattr(found, name), (module, name)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise RuntimeError('broken')", "import no_such_module"])
def test_a_broken_triton_stops_nothing_else(how: str, tmp_path: Path) -> None:
    """Not even the import; what it says is the reason."""
    folder = tmp_path / "triton"
    folder.mkdir()
    (folder / "__init__.py").write_text(how)
    code = (
        "import torch, swin_umamba_ops as ops\n"
        "x = torch.randn(1, 3, 4, 4)\n"
        "for backend in ('auto', 'pytorch'):\n"
        "    ops.conv3x3(x, torch.randn(2, 3, 3, 3), backend=backend)\n"
        "    ops.layer_norm(x, torch.ones(4), torch.ones(4), 1e-5, backend=backend)\n"
        "print(ops.available_backends()['triton'])"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot import it: ")


def test_ss2d_refuses_a_backend_of_another_device() -> None:
    if backends.why_unusable("cuda") is None and torch.cuda.is_available():
        expected = "it supports CUDA tensors"
    else:
        expected = "backend 'cuda' does not support cpu"
    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(RuntimeError, match=expected):
        ops.ss2d(
            x,
            torch.zeros(4, 3, 2),
            torch.zeros(4, 2, 1),
            torch.zeros(4, 2),
            torch.zeros(8, 1),
            torch.zeros(8),
            backend="cuda",
        )


def test_report_names_versions_devices_and_reasons() -> None:
    text = report()
    assert ops.__version__ in text
    assert torch.__version__ in text
    told = dict(line.split(maxsplit=1) for line in text.split("Backends")[1].splitlines()[1:])
    assert told == {
        name: "usable" if reason is None else f"no: {reason}"
        for name, reason in ops.available_backends().items()
    }


def test_sources_import_torch_alone() -> None:
    """Beside Python's own modules and ours; Triton where its kernels are, which load when run."""
    root = Path(ops.__file__).parent
    for path in root.rglob("*.py"):
        allowed = {"torch", "swin_umamba_ops", *sys.stdlib_module_names}
        if "triton" in path.relative_to(root).as_posix() or path.stem.endswith("_kernels"):
            allowed.add("triton")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in {path.name}"
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.slow
def test_import_does_not_load_the_compiler() -> None:
    """torch._dynamo takes longer to import than torch itself."""
    code = "import sys, swin_umamba_ops; print('torch._dynamo' in sys.modules)"
    assert _python("-c", code) == "False\n"


@pytest.mark.slow
def test_module_runs() -> None:
    assert "Backends, fastest first" in _python("-m", "swin_umamba_ops")


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_version_is_the_installed_one() -> None:
    try:
        installed = importlib.metadata.version("swin-umamba")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed")
    assert installed == ops.__version__
