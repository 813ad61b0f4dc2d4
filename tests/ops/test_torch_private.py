"""Private names of PyTorch: which are used, that all are in one file, and that all are needed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import swin_umamba_ops
from swin_umamba_ops import torch_private

SOURCES = Path(swin_umamba_ops.__file__).parent


def _private_names(path: Path) -> set[str]:
    """Dotted names that start with torch and have a part that begins with one underscore."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            private = [part for part in rest if part.startswith("_") and part[:2] != "__"]
            if first in ("torch", "triton") and private:
                found.add(name)
    return found


def test_they_are_all_in_one_file() -> None:
    for path in SOURCES.rglob("*.py"):
        if path.name != "torch_private.py":
            assert not _private_names(path), path
    assert _private_names(SOURCES / "torch_private.py") == {
        "torch._C", "torch._C._are_functorch_transforms_active",
        "torch._higher_order_ops.scan.scan", "torch.autograd.forward_ad._current_level",
    }  # fmt: skip


def test_the_compiler_still_looks_for_the_mark_of_constants() -> None:
    """What the public function does: if it does anything else, ours has to as well."""

    def ours() -> int:
        return 1

    def theirs() -> int:
        return 1

    torch_private.constant_result(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs)


def test_transforms_are_seen() -> None:
    """Without a public name: torch.func offers none, nor does torch.autograd.forward_ad."""
    assert not torch_private.transforms_active()
    seen = []

    def look(t: torch.Tensor) -> torch.Tensor:
        seen.append(torch_private.transforms_active())
        return t.sum()

    torch.func.grad(look)(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2, 2))
    with torch.autograd.forward_ad.dual_level():
        look(torch.ones(2))
    assert seen == [True] * 3
    assert not torch_private.transforms_active()


def test_the_scan_operator_has_no_public_name_yet() -> None:
    assert callable(torch_private.scan_operator())
    public = [getattr(torch, "scan", None), getattr(torch.func, "scan", None)]
    assert public == [None, None], "use the public one in torch_private.scan_operator"


@pytest.mark.gpu
def test_the_raw_stream_is_the_current_one() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    assert torch_private._raw_stream is not None, "torch has no raw streams any more"
    device = torch.device("cuda", torch.cuda.current_device())
    with torch.cuda.stream(torch.cuda.Stream()):
        expected = torch.cuda.current_stream().cuda_stream
        assert torch_private.raw_stream(device) == expected
