"""Masks agree with saved probabilities, for any plan, spacing, orientation and format."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from predict_helpers import Nearest, plan_of

from swin_umamba import Predictor
from swin_umamba.data import CaseFiles, read_labels, read_raw
from swin_umamba.inference import scratch
from swin_umamba.inference.files import Extras, predict_cases
from swin_umamba.inference.predictor import Ensemble

FORMATS = (".png", ".jpg", ".bmp", ".TIF", ".tiff", ".nii", ".nii.gz")
SPACING = st.sampled_from((0.4, 0.7, 1.0, 1.004, 1.9, 3.0))


def _written(
    folder: Path, ending: str, shape: tuple[int, int, int], affine: np.ndarray, seed: int
) -> Path:
    """An image of noise, of one slice where the format holds no more."""
    path = folder / f"image{ending}"
    pixels = np.random.default_rng(seed).integers(0, 4, shape, np.uint8)
    if ending.startswith(".nii"):
        import nibabel

        nibabel.save(nibabel.Nifti1Image(pixels.astype(np.int16), affine), path)
    elif ending.lower().startswith(".tif"):
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels[0]).save(path)
    return path


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Axes in any order and direction, each with its spacing, and an origin."""
    order = draw(st.permutations([0, 1, 2]))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, row in enumerate(order):
        affine[row, column] = draw(st.sampled_from((-1, 1))) * draw(SPACING)
    affine[:3, 3] = draw(st.lists(st.integers(-50, 50), min_size=3, max_size=3))
    return affine


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    ending=st.sampled_from(FORMATS),
    shape=st.tuples(st.integers(2, 5), st.integers(1, 40), st.integers(1, 40)),
    affine=affines(),
    axis=st.integers(0, 2),
    spacing=st.tuples(SPACING, SPACING),
    patch=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    scheme=st.sampled_from(("zscore", "ct", "none")),
    classes=st.integers(2, 5),
    values=st.permutations([0, 1, 2, 7, 255]),
    in_memory=st.booleans(),
    models=st.integers(1, 2),
)
def test_masks_are_decided_from_the_restored_probabilities(
    ending: str,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    axis: int,
    spacing: tuple[float, float],
    patch: tuple[int, int],
    scheme: str,
    classes: int,
    values: list[int],
    in_memory: bool,
    models: int,
) -> None:
    labels = {f"class {i}": values[i] for i in range(classes)}
    plan = plan_of(
        classes,
        axis=axis if ending.startswith(".nii") else 0,
        spacing=spacing,
        patch_size=patch,
        normalization=(scheme,),
        labels=labels,
        values=tuple(labels.values()),
    )
    predictor = Predictor(Nearest(classes, step=0.5), plan=plan, overlap=0.3)
    if models == 2:
        other = dataclasses.replace(plan, axis=0, spacing=(1.0, 1.0), patch_size=(9, 9))
        predictor = Ensemble([predictor, Predictor(Nearest(classes, step=0.8), plan=other)])
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(scratch, "IN_MEMORY", 1 << 26 if in_memory else 0)
        folder = Path(name)
        path = _written(folder, ending, shape, affine, seed=sum(shape))
        cases, out = [CaseFiles("image", (path,))], folder / "out"
        outcome = predict_cases(predictor, cases, out, extras=Extras(probabilities=True))
        assert outcome.failed == {}
        probabilities = np.load(out / "image.npz")["probabilities"]
        raw = read_raw(path)
        assert probabilities.shape == (classes, *raw.pixels.shape[1:])
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
        (mask,) = (file for file in out.glob("image.*") if file.suffix != ".npz")
        found = read_labels(mask, raw).labels
        expected = np.array(plan.values)[probabilities.argmax(0)]
        np.testing.assert_array_equal(found, expected)
        # Without the probabilities on disk, and from Python: the same.
        alone = predict_cases(predictor, cases, folder / "alone")
        assert alone.done == ("image",)
        np.testing.assert_array_equal(read_labels(folder / "alone" / mask.name).labels, found)
        np.testing.assert_array_equal(np.array(plan.values)[predictor(read_raw(path))], found)
