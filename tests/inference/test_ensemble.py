"""Several models: probabilities are averaged on the image's own grid."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of
from safetensors.torch import load_file

from swin_umamba import Predictor
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Ensemble
from swin_umamba.weights import read_config
from swin_umamba.weights.saved import save_tensors

Trained = tuple[Path, Path]


@pytest.fixture(scope="module")
def other_run(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with other weights, windows and spacing."""
    run = tmp_path_factory.mktemp("other") / "run"
    shutil.copytree(trained[1], run)
    best = run / "best.safetensors"
    tensors = {name: 0.5 * tensor for name, tensor in load_file(best).items()}
    save_tensors(tensors, best, {}, read_config(best))
    for name, changes in (
        ("plan.json", {"patch_size": [24, 40], "spacing": [1.3, 0.9]}),
        ("config.json", {"patch_size": [24, 40]}),
    ):
        facts = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(facts | changes))
    return run


@pytest.mark.parametrize("axes", [(0, 0), (0, 1), (2, 1)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_each_model_has_its_own_plan(
    axes: tuple[int, int], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr("swin_umamba.inference.scratch.IN_MEMORY", 0)
    first, second = (
        Predictor(
            Nearest(3, step), plan=plan_of(3, axis=axis, spacing=spacing), patch_size=(size, 8)
        )
        for axis, step, spacing, size in zip(
            axes, (0.7, 1.0), ((1.0, 2.0), (0.6, 1.0)), (8, 11), strict=True
        )
    )
    image = np.random.default_rng(0).uniform(0, 2, (1, 7, 12, 9)).astype(np.float32)
    found = Ensemble([first, second])
    expected = (first.probabilities(image, 1.0) + second.probabilities(image, 1.0)) / 2
    np.testing.assert_allclose(found.probabilities(image, 1.0), expected, atol=1e-6)
    labels = found(image, 1.0)
    np.testing.assert_array_equal(labels, found.probabilities(image, 1.0).argmax(0))
    assert (labels != first(image, 1.0)).any()
    with pytest.raises(UserError, match=r"spacing: got None, .*\(1\.0, 2\.0\)\]"):
        found(image)
    if axes[0] == axes[1]:
        assert found(image[:, 0], 1.0).shape == (12, 9)
    else:
        with pytest.raises(UserError, match=r"image: got \(1, 12, 9\), expected a volume"):
            found(image[:, 0], 1.0)


def test_runs_and_exports_on_the_command_line(
    trained: Trained, other_run: Path, tmp_path: Path
) -> None:
    dataset, run = trained
    one = dataset / "images" / "case0.png"
    options = ("--save-probabilities", "--device", "cpu")
    for runs, name in (([run], "a"), ([other_run], "b"), ([run, other_run], "both")):
        result = invoke("predict", *runs, one, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
    found = {n: np.load(tmp_path / n / "case0.npz")["probabilities"] for n in ("a", "b", "both")}
    np.testing.assert_allclose(found["both"], (found["a"] + found["b"]) / 2, atol=1e-6)
    mask = np.array(Image.open(tmp_path / "both" / "case0.png"))
    np.testing.assert_array_equal(mask, 255 * found["both"].argmax(0)[0])
    np.testing.assert_array_equal(
        Predictor.from_run([run, other_run], device="cpu")(one), mask // 255
    )
    assert (
        "1 already existed"
        in invoke("predict", run, other_run, one, tmp_path / "both", *options).output
    )
    result = invoke("predict", run, one, tmp_path / "both", *options)
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "made by another model or with other options: models 2, now 1. --overwrite" in words
    result = invoke("predict", run, run, one, tmp_path / "both", *options)
    assert "model 2: model " in " ".join(result.output.split())
    assert "model 1: " not in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"class 0": 0, "lesion": 1}}, "their classes differ"),
        ({"values": (0, 5)}, "their numbers of classes differ"),
        ({"channel_names": ("other",)}, "their channels differ"),
    ],
)
def test_models_that_do_not_fit_together_are_refused(
    changes: dict[str, object], message: str
) -> None:
    plan = plan_of(2)
    other = Predictor(Nearest(2), plan=dataclasses.replace(plan, **changes))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        Ensemble([Predictor(Nearest(2), plan=plan), other])


def test_the_folds_of_a_folder_are_an_ensemble(
    trained: Trained, other_run: Path, tmp_path: Path
) -> None:
    for number, run in enumerate((trained[1], other_run)):
        shutil.copytree(run, tmp_path / f"fold_{number}")
    image = trained[0] / "images" / "case1.png"
    folds = Predictor.from_run(tmp_path, device="cpu")
    both = Predictor.from_run([trained[1], other_run], device="cpu")
    np.testing.assert_array_equal(folds.probabilities(image), both.probabilities(image))
    with pytest.raises(ValueError, match="predictors: got none"):
        Predictor.from_run([])
