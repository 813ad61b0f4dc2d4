"""From probabilities to labels: mutually exclusive classes, and overlapping regions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_nnunet

from swin_umamba.data import Plan, make_plan, open_dataset, preprocess

REGIONS = {"background": 0, "whole": [1, 2, 5], "core": [2, 5], "enhancing": 5}


@pytest.fixture
def regions(tmp_path: Path) -> Plan:
    """Values 0, 1, 2 and 5; three regions, each within the one before."""
    folder = write_nnunet(tmp_path / "d", labels=REGIONS, regions_class_order=[1, 2, 5])
    return make_plan(open_dataset(folder))


def test_classes(tmp_path: Path) -> None:
    plan = make_plan(open_dataset(write_nnunet(tmp_path)))
    assert (plan.num_outputs, plan.activation, plan.region_classes) == (2, "softmax", None)
    found = plan.decide(np.array([[0.4, 0.6, 0.5], [0.6, 0.4, 0.5]]))
    assert found.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=r"probabilities: got shape \(3, 2\), expected 2 along"):
        plan.decide(np.zeros((3, 2)))


def test_regions(regions: Plan) -> None:
    assert (regions.num_outputs, regions.num_classes, regions.activation) == (3, 4, "sigmoid")
    assert regions.region_names == ("whole", "core", "enhancing")
    assert regions.region_classes == ((1, 2, 3), (2, 3), (3,))
    probabilities = np.array(
        # none, whole, core within whole, all, core without whole, at the threshold
        [[0.1, 0.9, 0.9, 0.9, 0.1, 0.5], [0.1, 0.2, 0.9, 0.9, 0.9, 0.5], [0, 0, 0, 0.6, 0, 0.5]]
    )
    assert regions.decide(probabilities).tolist() == [0, 1, 2, 3, 2, 0]
    stacked = probabilities.T[:, :, None]
    assert regions.decide(stacked, axis=1)[:, 0].tolist() == [0, 1, 2, 3, 2, 0]


def test_later_regions_of_the_order_win(regions: Plan) -> None:
    turned = replace(regions, regions_class_order=(5, 2, 1))
    assert turned.decide(np.ones((3, 1))).tolist() == [1]
    assert turned.decide(np.array([[1.0], [1.0], [0.0]])).tolist() == [2]


def test_regions_have_no_background_outside(regions: Plan) -> None:
    assert regions.outside.tolist() == [0, 0, 0]
    assert not regions.decide(regions.outside[:, None]).any()


def test_plans_with_regions_go_through_json(regions: Plan, tmp_path: Path) -> None:
    regions.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == regions
    for changes in (
        {"regions_class_order": None},
        {"regions_class_order": (1, 2)},
        {"regions_class_order": (1, 2, 3)},
        {"regions": ((1,), (2,), (7,))},
        {"regions": ((1,), (2,), ())},
        {"regions": ()},
        {"region_names": ("a",)},
    ):
        with pytest.raises(ValueError, match="region"):
            replace(regions, **changes)


def test_positions_are_of_regions(regions: Plan, tmp_path: Path) -> None:
    dataset = open_dataset(tmp_path / "d")
    (volume,) = preprocess(dataset, regions, ["case_0"], tmp_path / "cache").volumes
    # Class 1 is in the first region only.
    assert np.unique(volume.positions()[:, 0]).tolist() == [1]
    ordinary = replace(regions, regions=None, regions_class_order=None, region_names=())
    (other,) = preprocess(dataset, ordinary, ["case_0"], tmp_path / "cache").volumes
    assert other.stem != volume.stem
