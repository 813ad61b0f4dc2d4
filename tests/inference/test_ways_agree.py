"""One case from the command line, from Python, through ONNX and in validation: the same mask."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from data_helpers import write_nnunet
from predict_helpers import invoke

from swin_umamba import Predictor
from swin_umamba.data import Plan, make_plan, open_dataset, preprocess, read_labels, read_raw
from swin_umamba.inference.facts import KEY
from swin_umamba.inference.onnx_network import OnnxNetwork
from swin_umamba.loop.world import World
from swin_umamba.models import SegmentationModel
from swin_umamba.runs import Run
from swin_umamba.train.validation import Validation


class Ways(NamedTuple):
    """A dataset of CT volumes, a run with its plan, and the run's ONNX file."""

    dataset: Path
    run: Path
    exported: Path


@pytest.fixture(scope="module")
def ways(
    trained: tuple[Path, Path], exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ways:
    """The run and the file of the squares with another plan: windows are smaller than slices."""
    onnx = pytest.importorskip("onnx")
    root = tmp_path_factory.mktemp("ct")
    write_nnunet(root / "set", cases=2, shape=(40, 36, 3), ending=".nii.gz", channels=("CT",))
    plan = make_plan(open_dataset(root / "set"), patch_size=(16, 24))
    shutil.copytree(trained[1], root / "run")
    plan.save(root / "run" / "plan.json")
    config = json.loads((root / "run" / "config.json").read_text())
    (root / "run" / "config.json").write_text(json.dumps(config | {"patch_size": [16, 24]}))
    graph = onnx.load(exported)
    facts = dataclasses.replace(OnnxNetwork(exported).facts, plan=plan)
    onnx.helper.set_model_props(graph, {KEY: facts.to_json()})
    onnx.save(graph, root / "model.onnx")
    return Ways(root / "set", root / "run", root / "model.onnx")


@pytest.mark.slow
def test_all_ways_agree_on_a_case(
    ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    dataset, run, exported = ways
    image = dataset / "imagesTr" / "case_0_0000.nii.gz"
    options = ("--device", "cpu", "--save-probabilities")
    result = invoke("predict", run, image, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    raw = read_raw(image)
    mask = read_labels(tmp_path / "out" / "case_0.nii.gz", raw).labels
    probabilities = np.load(tmp_path / "out" / "case_0.npz")["probabilities"]
    clear = np.abs(probabilities[1] - probabilities[0]) > 1e-5
    assert clear.mean() > 0.99
    assert 0 < mask.mean() < 1
    others = {
        "python": Predictor.from_run(run, device="cpu")(image),
        "onnx": Predictor.from_export(exported)(image),
        "validation": _validated(dataset, run),
    }
    for way, found in others.items():
        np.testing.assert_array_equal(found[clear], mask[clear], err_msg=way)
    result = invoke("predict", exported, image, tmp_path / "onnx")
    assert result.exit_code == 0, result.output
    found = read_labels(tmp_path / "onnx" / "case_0.nii.gz", raw).labels
    np.testing.assert_array_equal(found[clear], mask[clear])


def _validated(dataset: Path, run: Path) -> np.ndarray:
    """The labels found by validation during training, on a grid equal to that of the files."""
    opened = Run.open(run)
    assert isinstance(opened.plan, Plan)
    cases = preprocess(open_dataset(dataset), opened.plan, ["case_0"])
    model = Predictor.from_run(run, device="cpu").model
    validation = Validation(cases, opened.config, World("cpu"), folder=run)
    assert isinstance(model, SegmentationModel)
    labels, _ = validation._segmented(validation._predictor(model), validation.volumes[0])
    return np.moveaxis(labels, 0, opened.plan.axis)
