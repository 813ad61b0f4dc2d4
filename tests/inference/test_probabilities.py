"""Probabilities of all classes: written in bands, and what masks are decided from."""

from __future__ import annotations

import resource
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of

from swin_umamba import Predictor
from swin_umamba.data import CaseFiles, read_raw
from swin_umamba.inference.files import Extras, predict_cases


def _rows(classes: int, side: int) -> np.ndarray:
    """A picture whose rows hold one class after another."""
    return np.repeat((np.arange(side) // 10 % classes).astype(np.uint8)[:, None], side, 1)


def test_memory_holds_bands_not_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, side = 40, 640
    monkeypatch.setattr("swin_umamba.inference.scratch.IN_MEMORY", 0)
    Image.fromarray(_rows(classes, side)).save(tmp_path / "large.png")
    cases = [CaseFiles("large", (tmp_path / "large.png",))]
    predictor = Predictor(Nearest(classes), plan=plan_of(classes), patch_size=(64, 64))
    tracemalloc.start()
    outcome = predict_cases(predictor, cases, tmp_path / "out", extras=Extras(probabilities=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.done == ("large",)
    assert peak < classes * side * side * 4 / 2
    found = np.load(tmp_path / "out" / "large.npz")["probabilities"]
    np.testing.assert_array_equal(found.argmax(0)[0], _rows(classes, side))
    mask = np.array(Image.open(tmp_path / "out" / "large.png"))
    np.testing.assert_array_equal(mask, _rows(classes, side))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"large.npz", "large.png", ".lock"}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.6)])
def test_volumes_and_other_spacings_are_restored_as_by_the_plan(
    tmp_path: Path, axis: int, spacing: tuple[float, float]
) -> None:
    nibabel = pytest.importorskip("nibabel")
    pixels = np.random.default_rng(0).uniform(0, 2, size=(70, 33, 9)).astype(np.float32)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    plan = plan_of(3, axis=axis, spacing=spacing)
    predictor = Predictor(Nearest(3), plan=plan)
    cases = [CaseFiles("volume", (path,))]
    predict_cases(predictor, cases, tmp_path / "out", extras=Extras(probabilities=True))
    raw = read_raw(path)
    slices = plan.preprocess(raw)
    scores = np.exp(-((slices - np.arange(3).reshape(1, 3, 1, 1)) ** 2))
    expected = plan.restore((scores / scores.sum(1, keepdims=True)).astype(np.float32), raw)
    found = np.load(tmp_path / "out" / "volume.npz")["probabilities"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mask = read_raw(tmp_path / "out" / "volume.nii.gz").pixels[0]
    np.testing.assert_array_equal(mask, found.argmax(0))
    np.testing.assert_array_equal(predictor(path), mask)
    np.testing.assert_array_equal(predictor.probabilities(path), found)


def test_a_thin_ring_keeps_its_form_when_resampled() -> None:
    """Masks are decided after resampling, not before: a ring of 3 mm, from 0.5 to 1 mm."""
    y, x = np.mgrid[:128, :128] * 0.5 - 32
    ring = (np.abs(np.hypot(y, x) - 20) < 1.5).astype(np.float32)
    predictor = Predictor(Nearest(2), plan=plan_of(2))
    mask = predictor(ring[None], spacing=0.5)
    probabilities = predictor.probabilities(ring[None], spacing=0.5)
    np.testing.assert_array_equal(mask, probabilities.argmax(0))
    dsc = 2 * (mask * ring).sum() / (mask.sum() + ring.sum())
    assert dsc > 0.95


def test_a_disk_full_of_probabilities_ends_the_job(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run = trained
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for in_memory in (1 << 26, 0):
        monkeypatch.setattr("swin_umamba.inference.scratch.IN_MEMORY", in_memory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        try:
            result = invoke("predict", run, dataset / "images", tmp_path, "--save-probabilities")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert result.exit_code == 1
        assert "cannot write" in result.output
        assert not list(tmp_path.glob("*.npz"))
        assert not list(tmp_path.glob("*.png"))
    signal.signal(signal.SIGXFSZ, handler)
