"""One case by the command line, from Python, through ONNX and in validation: one mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_nnunet
from predict_helpers import invoke

from swin_umamba import Predictor
from swin_umamba.data import Plan, open_dataset, preprocess, read_labels, read_raw
from swin_umamba.runs import Run
from swin_umamba.train.validation import Validation
from swin_umamba.train.world import World


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Volumes of CT, and a short run on them in windows smaller than the slices."""
    root = tmp_path_factory.mktemp("ct")
    write_nnunet(root / "set", cases=5, shape=(40, 36, 3), ending=".nii.gz", channels=("CT",))
    config = root / "model.json"
    config.write_text('{"model_options": {"dims": [4, 8], "depths": [1, 1], "d_state": 1}}')
    result = invoke(
        *("train", root / "set", root / "run", "--config", config, "--iterations", 6),
        *("--batch-size", 2, "--patch-size", 16, 24, "--lr", 0.01, "--validate-every", 6),
        *("--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    return root / "set", root / "run"


def test_all_ways_agree_on_a_case(
    ct: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    dataset, run = ct
    image = dataset / "imagesTr" / "case_0_0000.nii.gz"
    exported = tmp_path / "model.onnx"
    assert invoke("export", run, exported).exit_code == 0
    options = ("--device", "cpu", "--save-probabilities")
    result = invoke("predict", run, image, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    raw = read_raw(image)
    mask = read_labels(tmp_path / "out" / "case_0.nii.gz", raw).labels
    probabilities = np.load(tmp_path / "out" / "case_0.npz")["probabilities"]
    clear = np.abs(probabilities[1] - probabilities[0]) > 1e-5
    assert clear.mean() > 0.99
    assert 0 < mask.mean() < 1
    ways = {
        "python": Predictor.from_run(run, device="cpu")(image),
        "onnx": Predictor.from_export(exported)(image),
        "validation": _validated(dataset, run),
    }
    for way, found in ways.items():
        np.testing.assert_array_equal(found[clear], mask[clear], err_msg=way)
    result = invoke("predict", exported, image, tmp_path / "onnx")
    assert result.exit_code == 0, result.output
    found = read_labels(tmp_path / "onnx" / "case_0.nii.gz", raw).labels
    np.testing.assert_array_equal(found[clear], mask[clear])


def _validated(dataset: Path, run: Path) -> np.ndarray:
    """The labels that validation in training finds, on a grid that is the files' own."""
    opened = Run.open(run)
    assert isinstance(opened.plan, Plan)
    cases = preprocess(open_dataset(dataset), opened.plan, ["case_0"])
    model = Predictor.from_run(run, device="cpu").model
    validation = Validation(cases, opened.config, World("cpu"), folder=run)
    labels, _ = validation._segmented(model, validation.volumes[0])  # type: ignore[arg-type]
    return np.moveaxis(labels, 0, opened.plan.axis)
