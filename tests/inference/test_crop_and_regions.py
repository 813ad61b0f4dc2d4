"""Plans with cropping or overlapping regions: masks and probabilities of the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from predict_helpers import Nearest, plan_of
from torch import Tensor

from swin_umamba.data import Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.inference.predictor import Predictor

SHAPE = (4, 70, 50)
INSIDE = (slice(1, 3), slice(20, 60), slice(5, 40))


def _image(channels: int = 1) -> np.ndarray:
    """Whole numbers 1 and 2 in a box, 0 around it."""
    image = np.zeros((channels, *SHAPE), np.float32)
    rng = np.random.default_rng(0)
    image[(slice(None), *INSIDE)] = rng.integers(1, 3, (channels, 2, 40, 35))
    return image


def _predictor(network: object, plan: Plan) -> Predictor:
    return Predictor(network, plan=plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.7)])
def test_what_is_cropped_off_is_background(axis: int, spacing: tuple[float, float]) -> None:
    """A network that sees no 0 inside the crop still produces results for the whole image."""
    plan = plan_of(3, crop_to_nonzero=True, axis=axis, spacing=(1.0, 1.0))
    sides = [1.0, 1.0, 1.0]
    rows, columns = (i for i in range(3) if i != axis)
    sides[rows], sides[columns] = spacing
    raw = RawImage(_image(), (sides[0], sides[1], sides[2]), (Path("x.nii"),), None)
    predictor = _predictor(Nearest(3, 0.5), plan)
    probabilities = predictor.probabilities(raw)
    expected = plan.restore(_slices(plan, raw), raw)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    labels = predictor(raw)
    np.testing.assert_array_equal(labels, plan.decide(probabilities))
    outside = np.ones(SHAPE, bool)
    outside[INSIDE] = False
    assert (probabilities[0][outside] == 1).all()
    assert not labels[outside].any()
    assert labels[INSIDE].all()


def _slices(plan: Plan, raw: RawImage) -> np.ndarray:
    logits = Nearest(3, 0.5)(torch.from_numpy(plan.preprocess(raw)))
    return logits.softmax(1).numpy()


class _Thresholds:
    """A network of two regions: above 0.5, and above 1.5."""

    def __init__(self) -> None:
        self.name, self.device = "Thresholds", torch.device("cpu")
        self.in_channels, self.out_channels = 1, 2

    def __call__(self, windows: Tensor) -> Tensor:
        return 8 * (windows - torch.tensor([0.5, 1.5]).view(1, 2, 1, 1))


@pytest.mark.parametrize("crop", [True, False])
def test_regions_are_decided_by_their_order(crop: bool) -> None:
    plan = plan_of(
        3,
        values=(0, 4, 9),
        regions=((4, 9), (9,)),
        region_names=("all", "core"),
        regions_class_order=(4, 9),
        crop_to_nonzero=crop,
    )
    image = _image()
    predictor = _predictor(_Thresholds(), plan)
    probabilities = predictor.probabilities(image)
    assert probabilities.shape == (2, *SHAPE)
    np.testing.assert_allclose(
        probabilities[0][INSIDE], 1 / (1 + np.exp(-8 * (image[0][INSIDE] - 0.5))), rtol=1e-4
    )
    np.testing.assert_array_equal(predictor(image), image[0])
    if crop:
        assert not probabilities[:, 0].any()
