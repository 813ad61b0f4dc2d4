from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swin_umamba.metrics import dice


def test_dice_equals_the_golden_values(fixtures: Path) -> None:
    data = np.load(fixtures / "metrics.npz")
    scores = dice(data["pred_semantic"], data["gt_semantic"], len(data["dsc"]) + 1)
    np.testing.assert_allclose(scores, data["dsc"], rtol=1e-10)


def test_empty_classes() -> None:
    pred, target = np.array([[0, 1], [1, 0]]), np.array([[0, 1], [2, 0]])
    both_one_none = dice(pred, target, 4)
    assert both_one_none[0] == pytest.approx(2 / 3)
    assert both_one_none[1] == 0.0
    assert np.isnan(both_one_none[2])


def test_bad_input_is_named() -> None:
    zeros = np.zeros((2, 2), int)
    with pytest.raises(ValueError, match="pred: got shape"):
        dice(zeros, np.zeros((2, 3), int), 2)
    with pytest.raises(TypeError, match="target"):
        dice(zeros, zeros.astype(float), 2)
    with pytest.raises(ValueError, match="num_classes"):
        dice(zeros, zeros, 1)
