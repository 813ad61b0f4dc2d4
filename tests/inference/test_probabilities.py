"""Probabilities of all classes: written in bands, whatever the image's size."""

from __future__ import annotations

import resource
import signal
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from predict_helpers import invoke

from swin_umamba import Predictor
from swin_umamba.data import CaseFiles, Plan, read_raw
from swin_umamba.inference import predictor as predicting
from swin_umamba.inference.files import Extras, predict_cases

ROWS = 64


class Bands:
    """Stands for a model: a pattern of probabilities, in bands of some rows."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def labels(self, image: np.ndarray) -> np.ndarray:
        raise AssertionError("probabilities were asked for")

    def bands(self, image: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, image.shape[1], ROWS):
            rows = min(ROWS, image.shape[1] - start)
            yield start, self.band(start, rows, image.shape[2])

    def band(self, start: int, rows: int, width: int) -> np.ndarray:
        found = np.zeros((self.classes, rows, width), np.float32)
        for row in range(rows):
            found[(start + row) // 100 % self.classes, row] = 1
        return found


@pytest.fixture
def plan(trained: tuple[Path, Path]) -> Plan:
    return Plan.load(trained[1] / "plan.json")


def many_classes(plan: Plan, classes: int) -> Plan:
    return replace(
        plan,
        labels={f"class{i}": i for i in range(classes)},
        values=tuple(range(classes)),
    )


def test_memory_holds_bands_not_all_classes(plan: Plan, tmp_path: Path) -> None:
    classes, side = 48, 1024
    Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / "large.png")
    cases = [CaseFiles("large", (tmp_path / "large.png",))]
    tracemalloc.start()
    outcome = predict_cases(
        Bands(classes),
        many_classes(plan, classes),
        cases,
        tmp_path / "out",
        extras=Extras(probabilities=True),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.done == ("large",)
    whole = classes * side * side * 4
    assert peak < whole / 2
    found = np.load(tmp_path / "out" / "large.npz")["probabilities"]
    expected = Bands(classes).band(0, side, side)
    np.testing.assert_array_equal(found[:, 0], expected)
    mask = np.array(Image.open(tmp_path / "out" / "large.png"))
    np.testing.assert_array_equal(mask, expected.argmax(0))
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"large.npz", "large.png"}
    assert not [
        p for p in (tmp_path / "out").iterdir() if p.suffix not in (".npz", ".png", ".jsonl")
    ]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.6)])
def test_volumes_and_other_spacings_are_restored_as_by_the_plan(
    plan: Plan, tmp_path: Path, axis: int, spacing: tuple[float, float]
) -> None:
    nibabel = pytest.importorskip("nibabel")
    pixels = np.random.default_rng(0).normal(size=(70, 33, 9)).astype(np.float32)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    plan = replace(many_classes(plan, 3), axis=axis, spacing=spacing)
    model = Bands(3)
    cases = [CaseFiles("volume", (path,))]
    predict_cases(model, plan, cases, tmp_path / "out", extras=Extras(probabilities=True))
    raw = read_raw(path)
    depth, _, height, width = plan.preprocess(raw).shape
    slices = np.stack([model.band(0, height, width)] * depth)
    found = np.load(tmp_path / "out" / "volume.npz")["probabilities"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, plan.restore(slices, raw))


@pytest.mark.parametrize("mirror", [False, True])
def test_bands_of_a_model_are_its_probabilities(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    predictor = Predictor.from_run(trained[1], device="cpu", mirror=mirror)
    image = np.random.default_rng(0).normal(size=(1, 200, 40)).astype(np.float32)
    whole = predictor.probabilities(image)
    parts = []

    def in_bands(*arguments: Any, **options: Any) -> Iterator[tuple[int, np.ndarray]]:
        return scores_in_bands(*arguments, **options, most_values=1)

    scores_in_bands = predicting.scores_in_bands
    monkeypatch.setattr(predicting, "scores_in_bands", in_bands)
    for start, band in predictor.bands(image):
        assert start == sum(part.shape[1] for part in parts)
        parts.append(band)
    assert len(parts) > 2
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


def test_a_disk_full_of_probabilities_ends_the_job(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, run = trained
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        result = invoke("predict", run, dataset / "images", tmp_path, "--save-probabilities")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.exit_code == 1
    assert f"cannot write in {tmp_path}" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())
