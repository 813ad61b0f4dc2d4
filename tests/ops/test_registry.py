"""Which backend is taken, what is said about the others, and the report on the machine."""

from __future__ import annotations

import ast
import importlib.metadata
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
    """Replace all backends by ones that say of themselves what the two tables tell."""
    monkeypatch.setattr(backends, "why_unusable", unusable.get)
    monkeypatch.setattr(
        backends,
        "load",
        lambda name: SimpleNamespace(why_unsupported=lambda *_: unsupported.get(name)),
    )


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
        assert backends.resolve("auto", CPU, torch.float32, 16) == "cpu"
        assert backends.resolve("auto", torch.device("cuda:1"), torch.float32, 16) == "cuda"
        assert backends.resolve("auto", torch.device("mps"), torch.float32, 16) == "pytorch"


@pytest.mark.usefixtures("fresh_registry")
def test_auto_falls_back_and_says_once_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"cuda": "no nvcc"}, {"triton": "N is odd"})
    device = torch.device("cuda:0")
    with pytest.warns(RuntimeWarning, match="'pytorch' on cuda:0") as caught:
        assert backends.resolve("auto", device, torch.float32, 16) == "pytorch"
    assert len(caught) == 1
    assert "'cuda' (no nvcc)" in str(caught[0].message)
    assert "'triton' (N is odd)" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.resolve("auto", device, torch.float32, 16)
        backends.resolve("auto", device, torch.float16, 8)


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize("name", ["cuda", "triton", "cpu", "pytorch"])
def test_a_named_backend_never_falls_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {name: "it is broken"}, {})
    with pytest.raises(RuntimeError, match=f"backend '{name}' cannot serve .*: it is broken"):
        backends.resolve(name, CPU, torch.float32, 16)
    _install(monkeypatch, {}, {name: "not this N"})
    with pytest.raises(RuntimeError, match=f"backend '{name}' cannot serve .*: not this N"):
        backends.resolve(name, CPU, torch.float32, 16)
    _install(monkeypatch, {}, {})
    assert backends.resolve(name, CPU, torch.float32, 16) == name


@pytest.mark.usefixtures("fresh_registry")
def test_a_missing_module_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backends.Row("no_such_backend", None)
    monkeypatch.setattr(backends, "ROWS", {row.name: row})
    reason = backends.why_unusable(row.name)
    assert reason == "this installation of swin_umamba_ops has no no_such_backend backend"
    with pytest.raises(RuntimeError, match=r"no backend serves cpu.*no_such_backend"):
        backends.resolve("auto", CPU, torch.float32, 16)


@pytest.mark.usefixtures("fresh_registry")
def test_a_module_that_does_not_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes Python refuse the import.
    monkeypatch.setitem(sys.modules, backends.ROWS["pytorch"].module, None)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: object())
    reason = backends.why_unusable("pytorch")
    assert reason is not None
    assert reason.startswith("cannot import it: ")


def test_ss2d_refuses_a_backend_of_another_device() -> None:
    if backends.why_unusable("cuda") is None and torch.cuda.is_available():
        expected = "it serves CUDA tensors"
    else:
        expected = "backend 'cuda' cannot serve cpu"
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


def test_import_does_not_load_the_compiler() -> None:
    """torch._dynamo takes longer to import than torch itself."""
    code = "import sys, swin_umamba_ops; print('torch._dynamo' in sys.modules)"
    assert _python("-c", code) == "False\n"


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
