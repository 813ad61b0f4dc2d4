"""`python -m benchmarks classes` on a CPU, and the floors that it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.models import kernel_classes
from benchmarks.models.kernel_classes import OPTIMIZER, SCANS, Rates, Row, class_of


def test_every_class_of_a_step_has_its_time_and_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "classes.json"
    arguments = ["--tiny", "--device", "cpu", "--models", "swin_umamba", "--out", str(path)]
    assert command.main(["classes", *arguments]) == 0
    rows = kernel_classes.load(path)
    assert rows is not None
    found = {row.name: row for row in rows}
    assert {SCANS, OPTIMIZER, "matrix products"} <= set(found)
    assert all(row.ms > 0 for row in rows)
    assert found[SCANS].floor_ms > 0
    assert "| all kernels |" in capsys.readouterr().out
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"rows": []}))
    assert kernel_classes.load(other) is None


@pytest.mark.gpu
def test_kernels_of_a_gpu_belong_to_their_operators(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    arguments = ["--tiny", "--models", "swin_umamba", "--out", str(path)]
    assert command.main(["classes", *arguments]) == 0
    found = {row.name: row for row in kernel_classes.load(path) or []}
    assert {SCANS, OPTIMIZER, "norms with activations and residuals", "loss"} <= set(found)
    assert all(row.ms > 0 and row.kernels > 0 for row in found.values())


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("convolution_backward", "convolutions, with the norms before them"),
        ("norm_act_conv3x3", "convolutions, with the norms before them"),
        ("instance_norm_act_backward", "norms with activations and residuals"),
        ("addmm_", "matrix products"),
        ("ss2d_scan_backward", SCANS),
        ("add_", kernel_classes.OTHER),
    ],
)
def test_operators_have_a_class(operator: str, name: str) -> None:
    assert class_of(operator) == name


def test_floors_count_tensors_once() -> None:
    rates = Rates(copy_bytes=1.0, operations=1e9, exponentials=None)
    a, b = torch.ones(4, 8), torch.ones(8)
    for work, expected in (
        (lambda: a + b.expand(4, 8), 32 * 4 + 8 * 4 + 32 * 4),
        (lambda: a.mul_(2), 2 * 32 * 4),
        (lambda: a.copy_(torch.broadcast_to(b, (4, 8))), 8 * 4 + 32 * 4),
        (lambda: a.transpose(0, 1), 0),
        (lambda: a.detach(), 0),
    ):
        with kernel_classes._Classified(rates) as classified:
            work()
        assert sum(classified.floors.values()) == expected


def test_products_count_their_operations() -> None:
    rates = Rates(copy_bytes=1e12, operations=1.0, exponentials=None)
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    with kernel_classes._Classified(rates) as classified:
        left @ right
    assert classified.floors == {"matrix products": 2 * 3 * 4 * 5}


def test_the_table_adds_up_all_kernels() -> None:
    rows = [Row("m", "1, 2x2", "float16", name, 2.0, 1.0, 3) for name in ("a", "b")]
    text = kernel_classes.markdown(rows)
    assert "| a | 2.00 (50%) |" in text
    assert "| all kernels | 4.00 (50%) |" in text
