"""`python -m benchmarks scale` on two processes of a CPU."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.measuring import results
from benchmarks.measuring.cases import ModelCase
from benchmarks.measuring.results import OK
from benchmarks.render import report
from benchmarks.training import scale, scale_prediction


@pytest.fixture(scope="module")
def measured(tmp_path_factory, warm_processes):
    path = tmp_path_factory.mktemp("scale") / "scale.json"
    arguments = ["--tiny", "--device", "cpu", "--models", "swin_umamba_d", "--out", str(path)]
    assert command.main(["scale", *arguments]) == 0
    return results.load(path)


@pytest.mark.slow
def test_each_number_of_processes_is_timed(measured):
    found = {(row.op, row.mode, row.competitor, row.status) for row in measured.rows}
    names = ("1 process", "2 processes")
    assert found == {("swin_umamba_d", "training", name, OK) for name in names}
    assert all(row.times.count >= 3 and row.dtype == "float32" for row in measured.rows)


@pytest.mark.slow
def test_images_count_for_all_processes(measured):
    one, two = measured.settings[scale.SCALING]
    assert one["ratio"] == 1
    assert two["ratio"] == two["images_per_second"] / one["images_per_second"]
    for entry, row in zip((one, two), measured.rows, strict=True):
        # Within the spread of single steps around their median.
        images = row.case.B * entry["processes"]
        assert 1e3 * images / entry["images_per_second"] >= row.times.least
    assert "2.00x" in scale.markdown(_doubled())
    assert "| swin_umamba_d | 2, 32x32 | 2 |" in report.markdown(measured)


def _doubled():
    cell = {"seconds": [0.5, 0.5], "waited": 0.0, "peak_bytes": None}
    case = ModelCase(2, 32, 32)
    cells = {("m", case, n): [{**cell, "images": 4 * n}] for n in (1, 2)}
    scaling = scale._scaling(cells)
    assert [entry["images_per_second"] for entry in scaling] == [4.0, 8.0]
    return results.Results({}, {}, {}, {scale.SCALING: scaling})


def _measured_at_one_and_two(exchange):
    """Steps of 0.1 s with 10 images, of 0.12 s with two processes, which exchange 1 GB."""
    common = {"model": "m", "case": "10, 8x8", "waited": 0.0, "peak_bytes": None, "ratio": 1.0}
    return [
        {**common, "processes": 1, "images_per_second": 100.0, "exchange_seconds": None},
        {
            **common,
            "processes": 2,
            "images_per_second": 20 / 0.12,
            "gradient_bytes": 10**9,
            "exchange_seconds": exchange,
        },
    ]


def test_prediction_for_more_processes():
    """A ring of four moves 1.5 GB in 0.015 s (at 100 GB/s), beside 0.01 s that two needed too."""
    entries = _measured_at_one_and_two(0.01)
    assert scale_prediction.ratio(entries, 2) == pytest.approx(2 / 1.2)
    assert scale_prediction.ratio(entries, 4) == pytest.approx(0.4 / (0.1 + 0.01 + 0.015))
    assert scale_prediction.ratio(entries, 4, link=30e9) == pytest.approx(0.4 / (0.1 + 0.01 + 0.05))
    assert "| 100 GB/s | 3.20x |" in scale_prediction.markdown(entries)


def test_no_prediction_without_an_exchange():
    entries = _measured_at_one_and_two(None)
    assert scale_prediction.markdown(entries) == ""
    assert scale_prediction.markdown(_measured_at_one_and_two(0.01)[1:]) == ""


def test_more_gpus_than_there_are_is_an_error(capsys):
    count = torch.cuda.device_count() + 1
    arguments = ["scale", "--device", "cuda", "--processes", str(count)]
    assert command.main(arguments) == 2
    assert f"--processes has {count}, here are {count - 1} GPUs" in capsys.readouterr().err


def test_a_launch_that_fails_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        scale, "_command", lambda n, path: [sys.executable, "-c", "raise OSError('no')"]
    )
    arguments = ["scale", "--tiny", "--device", "cpu", "--out", str(tmp_path / "f.json")]
    assert command.main([*arguments, "--models", "swin_umamba_d"]) == 1
    assert "OSError: no" in capsys.readouterr().out
