"""DSC, NSD and instance F1 compared with golden values, and where they are undefined."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from swin_umamba.metrics import dice, instance_f1, normalized_surface_dice
from swin_umamba.metrics.instances import instance_map

GOLDEN = np.load(Path(__file__).parents[1] / "fixtures" / "metrics.npz")
SQUARE = np.zeros((40, 40), np.int64)
SQUARE[10:20, 10:20] = 1


def test_golden_dice() -> None:
    found = dice(GOLDEN["pred_semantic"], GOLDEN["gt_semantic"], 4)
    np.testing.assert_allclose(found, GOLDEN["dsc"], atol=1e-5)


@pytest.mark.parametrize(
    ("convention", "name"), [("contour", "nsd_tol2"), ("release", "nsd_tol2_release")]
)
def test_golden_surface_dice(convention: str, name: str) -> None:
    found = normalized_surface_dice(
        GOLDEN["pred_semantic"], GOLDEN["gt_semantic"], 4, 2, convention=convention
    )
    np.testing.assert_allclose(found, GOLDEN[name], atol=1e-5)


def test_golden_instances() -> None:
    found = instance_f1(GOLDEN["pred_foreground"], GOLDEN["gt_instances"])
    assert (found.tp, found.fp, found.fn) == (GOLDEN["tp"], GOLDEN["fp"], GOLDEN["fn"])
    assert found.f1 == pytest.approx(float(GOLDEN["f1"]), abs=1e-5)


@pytest.mark.parametrize("convention", ["contour", "release"])
def test_surface_dice_counts_empty_classes_as_dice_does(convention: str) -> None:
    empty = np.zeros_like(SQUARE)
    both = normalized_surface_dice(empty, empty, 2, 1, convention=convention)
    one = normalized_surface_dice(SQUARE, empty, 2, 1, convention=convention)
    assert np.isnan(both).all()
    assert one.tolist() == [0]
    assert normalized_surface_dice(SQUARE, SQUARE, 2, 0, convention=convention).tolist() == [1]


def test_surface_dice_measures_in_the_unit_of_the_spacing() -> None:
    moved = np.roll(SQUARE, 3, axis=0)
    near = normalized_surface_dice(moved, SQUARE, 2, 3.1, spacing=(1, 1))
    far = normalized_surface_dice(moved, SQUARE, 2, 3.1, spacing=(2, 1))
    assert near.tolist() == [1]
    assert far[0] < 1


def test_surface_dice_of_a_volume() -> None:
    volume = np.zeros((12, 20, 20), np.int64)
    volume[3:9, 5:15, 5:15] = 1
    moved = np.roll(volume, 2, axis=0)
    assert normalized_surface_dice(moved, volume, 2, 2.1, spacing=(1, 1, 1)).tolist() == [1]
    assert normalized_surface_dice(moved, volume, 2, 1, spacing=(1, 1, 1))[0] < 1
    with pytest.raises(ValueError, match="'release' is for"):
        normalized_surface_dice(moved, volume, 2, 1, convention="release")


@given(st.integers(0, 12), st.integers(0, 12))
def test_cutting_away_what_both_lack_changes_nothing(row: int, column: int) -> None:
    a = np.zeros((24, 24), np.int64)
    a[row : row + 8, column : column + 9] = 1
    b = np.roll(a, (2, 1), (0, 1))
    wide = [np.pad(m, 30) for m in (a, b)]
    assert normalized_surface_dice(*wide, 2, 1) == pytest.approx(
        normalized_surface_dice(np.pad(a, 4), np.pad(b, 4), 2, 1)
    )


def test_objects_at_the_border_are_left_out() -> None:
    objects = np.zeros((30, 30), np.int64)
    objects[0:6, 0:6], objects[10:16, 10:16] = 1, 2
    found = instance_f1(objects > 0, objects)
    assert (found.tp, found.fp, found.fn) == (1, 0, 0)
    kept = instance_f1(objects > 0, objects, border=0)
    assert kept.tp == 2


def test_objects_that_touch_at_a_corner_are_one() -> None:
    objects = np.zeros((20, 20), np.int64)
    objects[4:8, 4:8], objects[8:12, 8:12] = 1, 2
    found = instance_f1(objects > 0, objects)
    assert (found.tp, found.fp, found.fn) == (1, 0, 1)  # IoU of one half with the smaller pair


def test_no_objects_at_all() -> None:
    empty = np.zeros((9, 9), np.int64)
    found = instance_f1(empty, empty)
    assert (found.tp, found.fp, found.fn) == (0, 0, 0)
    assert np.isnan(found.f1)
    assert np.isnan(found.precision)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pred": SQUARE[1:]}, "pred: got shape"),
        ({"pred": SQUARE.astype(float)}, "pred: got float64"),
        ({"num_classes": 1}, "num_classes: got 1"),
        ({"tolerance": -1}, "tolerance: got -1"),
        ({"spacing": (1, 1, 1)}, "spacing: got"),
        ({"convention": "other"}, "convention: got 'other'"),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    given = {"pred": SQUARE, "target": SQUARE, "num_classes": 2, "tolerance": 1} | arguments
    with pytest.raises((ValueError, TypeError), match=message):
        normalized_surface_dice(**given)


def _by_all_pairs(pred: np.ndarray, target: np.ndarray, iou: float) -> int:
    """Pairs found in the table of all objects by all objects."""
    objects = instance_map(pred)
    found = [objects == n for n in np.unique(objects) if n]
    true = [target == n for n in np.unique(target) if n]
    table = np.array([[(a & b).sum() / (a | b).sum() for b in true] for a in found])
    if not table.size:
        return 0
    rows, columns = linear_sum_assignment(-1.0 * (table >= iou))
    return int((table[rows, columns] >= iou).sum())


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.2, 0.3, 0.5, 0.8, 1.0]))
def test_instances_are_matched_as_by_all_pairs(seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 12, 2))
    target = rng.integers(rng.integers(-2, 1), rng.integers(1, 6), size)
    pred = (target > 0) ^ (rng.random(size) < 0.2)
    found = instance_f1(pred, target, iou=iou, border=0)
    assert found.tp == _by_all_pairs(pred, target, iou)
    assert found.tp + found.fp == instance_map(pred).max()
    assert found.tp + found.fn == len(set(target.ravel()) - {0})


def test_many_instances_need_little_memory() -> None:
    """A table of all objects by all objects would take 80 GB."""
    target = np.zeros((640, 640), np.int32)
    target[::2, ::2] = np.arange(1, 320 * 320 + 1).reshape(320, 320)
    tracemalloc.start()
    found = instance_f1(target > 0, target, border=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.tp, found.fp, found.fn) == (320 * 320, 0, 0)
    assert peak < 100 * target.nbytes
