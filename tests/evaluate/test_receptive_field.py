"""Effective receptive fields of networks with known ones, and of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import write_bare
from PIL import Image
from torch import nn
from train_helpers import TINY_MODEL
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.evaluate.receptive_field import (
    _cut,
    effective_receptive_field,
    field_of_run,
    side_of,
)
from swin_umamba.train import TrainConfig, prepare, train_prepared


def _box(side: int) -> nn.Module:
    """A sum over side x side pixels."""
    convolution = nn.Conv2d(2, 3, side, padding=side // 2, bias=False)
    nn.init.constant_(convolution.weight, 1.0)
    return convolution


def test_a_box_filter_sees_its_box() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 2, 15, 15, generator=generator) for _ in range(3)]
    field = effective_receptive_field(_box(5), images)
    expected = np.zeros((15, 15))
    expected[5:10, 5:10] = 1 / 25
    np.testing.assert_allclose(field, expected, atol=1e-12)
    assert side_of(field, 1.0) == pytest.approx(5 / 15)
    assert side_of(field, 9 / 25) == pytest.approx(3 / 15)
    assert side_of(field, 1 / 25) == pytest.approx(1 / 15)


def test_networks_that_see_nothing_are_refused() -> None:
    image = torch.zeros(1, 2, 8, 8)
    with pytest.raises(ValueError, match="none of them has a gradient"):
        effective_receptive_field(lambda x: 0 * x, [image])
    with pytest.raises(ValueError, match="none of them has a gradient"):
        effective_receptive_field(_box(3), [])


@pytest.mark.parametrize(("shape", "size"), [((7, 9), (3, 5)), ((4, 5), (8, 7)), ((6, 3), (4, 8))])
def test_the_middle_is_cut_out(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, *shape)
    cut = _cut(image, *size)
    assert cut.shape == (1, *size)
    kept = np.prod([min(a, b) for a, b in zip(shape, size, strict=True)])
    assert (cut > 0).sum() == kept
    rows, columns = ((n - min(n, m)) // 2 for n, m in zip(shape, size, strict=True))
    assert cut[cut > 0].min() == image[0, rows, columns]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    dataset = write_bare(tmp_path / "scans", cases=5)
    config = TrainConfig(model_options=TINY_MODEL, iterations=1, device="cpu")
    prepared = prepare(dataset, config, patch_size=(16, 16))
    train_prepared(prepared, tmp_path / "run")
    return tmp_path / "run"


def test_of_a_run_on_the_command_line(run: Path, tmp_path: Path) -> None:
    field = field_of_run(run, size=(24, 16), device="cpu")
    assert field.shape == (24, 16)
    assert field.sum() == pytest.approx(1.0)
    assert 0 < side_of(field, 0.5) <= side_of(field, 0.99) <= 1
    picture = tmp_path / "field.png"
    shutil.copytree(run, tmp_path / "again" / "run")
    words = [
        "receptive-field",
        str(run),
        str(tmp_path / "again" / "run"),
        "--out",
        str(picture),
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "90%" in done.output
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1.5 * drawn.size[1]  # two side by side


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["receptive-field", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not a training run" in done.stderr


def test_what_cannot_be_drawn_is_refused_first(tmp_path: Path) -> None:
    """A picture of another name was a PNG all the same, and a side of 0 was an error of the model.

    Both before the run is opened, which does not exist.
    """
    for words, message in (
        (("--out", "field.jpg"), "--out: got field.jpg, expected a name that ends in .png"),
        (("--size", "0", "16"), "size: got (0, 16), expected two numbers above 0"),
    ):
        done = CliRunner().invoke(app, ["receptive-field", str(tmp_path / "run"), *words])
        assert done.exit_code == 1
        assert message in " ".join(done.stderr.split())
