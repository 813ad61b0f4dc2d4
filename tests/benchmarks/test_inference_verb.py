"""`python -m benchmarks inference` on a small image of a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.models import large_images
from benchmarks.models.large_images import Settings


def test_a_large_image_is_predicted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "inference.json"
    arguments = ["--tiny", "--device", "cpu", "--models", "swin_umamba_d", "dynunet"]
    assert command.main(["inference", *arguments, "--out", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["settings"]["side"] == 96
    ours, other = found["rows"]
    assert ours["windows"] == other["windows"] == 25
    assert ours["seconds"] > 0
    assert ours["windows_share"] > 0  # of two times that are measured apart: load may change it
    assert ours["busy"] is None
    assert ours["device_bytes"] is None
    # Whole widths come no nearer at this size.
    assert 0.5 < other["gflops_window"] / ours["gflops_window"] < 2
    assert "| swin_umamba_d | auto |" in capsys.readouterr().out


@pytest.mark.slow
def test_dynunet_takes_as_many_flops() -> None:
    settings = Settings(torch.device("cpu"), ("swin_umamba_d", "dynunet"), patch=256)
    ours, other = (
        large_images._flops(name, large_images._options(settings, name), 256)
        for name in settings.models
    )
    assert other == pytest.approx(ours, rel=0.05)


@pytest.mark.gpu
def test_a_gpu_tells_its_share_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "inference.json"
    assert (
        command.main(["inference", "--tiny", "--graphs", "auto", "false", "--out", str(path)]) == 0
    )
    for row in json.loads(path.read_text())["rows"]:
        assert 0 < row["busy"] <= 1
        assert row["device_bytes"] > 0
