"""Everything wrong is refused by name, before any kernel runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import ScanCase, SS2DCase, make_scan, make_ss2d

import swin_umamba_ops as ops
from swin_umamba_ops.ops import selective_scan, ss2d

GOOD = {n: t.float() for n, t in make_ss2d(SS2DCase(2, 8, 5, 7, 4, 2)).items()}
GOOD_SCAN = {n: t.float() for n, t in make_scan(ScanCase(2, 6, 20, 4, 2)).items()}
Change = Callable[[torch.Tensor], Any]

SS2D_FAULTS: list[tuple[str, str, Change, type[Exception], str]] = [
    ("rank", "x", lambda t: t[0], ValueError, r"x has shape \(8, 5, 7\), .*\(B, D, H, W\)"),
    ("channels", "x", lambda t: t[:, :4], ValueError, r"dt_projs_weight has shape \(4, 8, 2\)"),
    ("height 0", "x", lambda t: t[:, :, :0], ValueError, "x has shape .* must not be 0"),
    ("width 0", "x", lambda t: t[..., :0], ValueError, "x has shape .* must not be 0"),
    ("channels 0", "x", lambda t: t[:, :0], ValueError, "x has shape .* must not be 0"),
    ("integers", "x", lambda t: t.long(), TypeError, "x has dtype torch.int64"),
    ("complex", "x", lambda t: t.to(torch.complex64), TypeError, "x has dtype torch.complex64"),
    ("list", "x", lambda t: t.tolist(), TypeError, "x is a list, expected a torch.Tensor"),
    ("device", "x", lambda t: t.to("meta"), ValueError, "x_proj_weight is on cpu, expected meta"),
    ("K", "x_proj_weight", lambda t: t[:3], ValueError, r"x_proj_weight .*\(4, R \+ 2N, D\)"),
    ("R + 2N", "x_proj_weight", lambda t: t[:, 1:], ValueError, r"shape \(4, 9, 8\).*\(4, 10, 8\)"),
    ("D", "x_proj_weight", lambda t: t[..., 1:], ValueError, "x_proj_weight has shape"),
    ("rank", "x_proj_weight", lambda t: t[0], ValueError, "x_proj_weight has shape"),
    ("device", "x_proj_weight", lambda t: t.to("meta"), ValueError, "x_proj_weight is on meta"),
    ("dtype", "x_proj_weight", lambda t: t.half(), TypeError, "x_proj_weight has dtype"),
    (
        "wider",
        "x_proj_weight",
        lambda t: t.double(),
        TypeError,
        "x_proj_weight .*torch.float64",
    ),
    ("None", "x_proj_weight", lambda t: None, TypeError, "x_proj_weight is a NoneType"),
    ("K", "dt_projs_weight", lambda t: t[:2], ValueError, r"dt_projs_weight .*\(4, D, R\)"),
    ("R", "dt_projs_weight", lambda t: t[..., :1], ValueError, "x_proj_weight has shape"),
    ("R 0", "dt_projs_weight", lambda t: t[..., :0], ValueError, "R must not be 0"),
    ("rank", "dt_projs_weight", lambda t: t[0], ValueError, "dt_projs_weight has shape"),
    ("flat", "dt_projs_bias", lambda t: t.flatten(), ValueError, r"dt_projs_bias .*\(4, D\)"),
    ("dtype", "dt_projs_bias", lambda t: t.int(), TypeError, "dt_projs_bias has dtype"),
    ("N", "A_logs", lambda t: t[:, :3], ValueError, "x_proj_weight has shape"),
    ("N 0", "A_logs", lambda t: t[:, :0], ValueError, "N must not be 0"),
    ("rows", "A_logs", lambda t: t[:8], ValueError, r"A_logs .*\(4 \* D, N\) = \(32, 4\)"),
    ("rank", "A_logs", lambda t: t.view(4, 8, 4), ValueError, "A_logs has shape"),
    ("complex", "A_logs", lambda t: t.to(torch.complex64), TypeError, "A_logs has dtype"),
    ("length", "Ds", lambda t: t[:8], ValueError, r"Ds has shape \(8,\).*\(4 \* D,\) = \(32,\)"),
]

SCAN_FAULTS: list[tuple[str, str, Change, type[Exception], str]] = [
    ("rank", "u", lambda t: t[0], ValueError, r"u has shape \(6, 20\), .*\(B, D, L\)"),
    ("length 0", "u", lambda t: t[..., :0], ValueError, "u has shape .* must not be 0"),
    ("integers", "u", lambda t: t.long(), TypeError, "u has dtype torch.int64"),
    ("length", "delta", lambda t: t[..., 1:], ValueError, "delta has shape"),
    ("device", "delta", lambda t: t.to("meta"), ValueError, "delta is on meta"),
    ("wider", "delta", lambda t: t.double(), TypeError, "delta has dtype torch.float64"),
    ("complex", "D", lambda t: t.to(torch.complex64), TypeError, "D has dtype torch.complex64"),
    ("rank", "A", lambda t: t[0], ValueError, "A has shape"),
    ("D", "A", lambda t: t[:5], ValueError, r"A has shape \(5, 4\), .*\(6, 4\)"),
    ("N 0", "A", lambda t: t[:, :0], ValueError, "N must not be 0"),
    ("N", "B", lambda t: t[:, :, :3], ValueError, "B has shape"),
    (
        "constant",
        "B",
        lambda t: t[0, :, :, 0],
        ValueError,
        r"expected \(D, N\) = \(6, 4\)",
    ),
    ("groups", "B", lambda t: t[:, :1].expand(-1, 4, -1, -1), ValueError, "B .* do not divide"),
    ("complex", "C", lambda t: t.to(torch.complex64), TypeError, "C has dtype .* A is real"),
    ("groups", "C", lambda t: t[:, :1], ValueError, "C has 1 groups, expected 2 like B"),
    ("rank", "C", lambda t: t[..., None], ValueError, "C has shape"),
    ("length", "D", lambda t: t[1:], ValueError, "D has shape"),
    ("length", "z", lambda t: t[..., 1:], ValueError, "z has shape"),
    ("list", "z", lambda t: t.tolist(), TypeError, "z is a list"),
    ("rank", "delta_bias", lambda t: t[None], ValueError, "delta_bias has shape"),
    ("None", "B", lambda t: None, TypeError, "B is a NoneType"),
]


def _ids(faults: list[tuple[str, str, Change, type[Exception], str]]) -> list[str]:
    return [f"{name}: {what}" for what, name, *_ in faults]


@pytest.fixture(autouse=True)
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if an op is reached."""

    def reached(*_: object) -> None:
        raise AssertionError("an op ran on bad input")

    monkeypatch.setattr(ss2d, "ss2d_scan", reached)
    monkeypatch.setattr(selective_scan, "selective_scan_op", reached)


@pytest.mark.parametrize("fault", SS2D_FAULTS, ids=_ids(SS2D_FAULTS))
def test_ss2d(fault: tuple[str, str, Change, type[Exception], str]) -> None:
    _, name, change, error, message = fault
    with pytest.raises(error, match=message):
        ops.ss2d(**(GOOD | {name: change(GOOD[name])}), backend="pytorch")


@pytest.mark.parametrize("fault", SCAN_FAULTS, ids=_ids(SCAN_FAULTS))
def test_selective_scan(fault: tuple[str, str, Change, type[Exception], str]) -> None:
    _, name, change, error, message = fault
    with pytest.raises(error, match=message):
        ops.selective_scan(**(GOOD_SCAN | {name: change(GOOD_SCAN[name])}), backend="pytorch")


@pytest.mark.parametrize("out_dtype", [torch.int32, "float32", torch.complex64])
def test_out_dtype(out_dtype: Any) -> None:
    with pytest.raises(TypeError, match="out_dtype is"):
        ops.ss2d(**GOOD, out_dtype=out_dtype)


@pytest.mark.parametrize("backend", ["gpu", "", "CUDA"])
def test_unknown_backend(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend is '{backend}', expected one of 'auto', 'cuda'"):
        ops.ss2d(**GOOD, backend=backend)
    with pytest.raises(ValueError, match=f"backend is '{backend}', expected one of 'auto', 'cuda'"):
        ops.selective_scan(**GOOD_SCAN, backend=backend)


def test_the_good_input_would_reach_the_op() -> None:
    with pytest.raises(AssertionError, match="an op ran"):
        ops.ss2d(**GOOD, backend="pytorch")
    with pytest.raises(AssertionError, match="an op ran"):
        ops.selective_scan(**GOOD_SCAN, backend="pytorch")
