"""Keeping only the largest component of a class, if the run found that this helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from swin_umamba import Predictor
from swin_umamba.errors import UserError
from swin_umamba.evaluate.postprocessing import save_postprocessing
from swin_umamba.inference.postprocessing import Postprocessing, keep_largest
from swin_umamba.inference.predictor import Ensemble
from swin_umamba.runs import Run

Trained = tuple[Path, Path]


def test_only_the_largest_component_of_the_named_classes_stays() -> None:
    labels = np.array(
        [
            [1, 1, 0, 2, 0, 2],
            [0, 0, 1, 0, 0, 0],  # joined to the first by a corner
            [1, 0, 0, 0, 1, 0],
        ],
        np.uint8,
    )
    found = keep_largest(labels, [1])
    expected = labels.copy()
    expected[2, 0] = expected[2, 4] = 0
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert keep_largest(labels, [1, 2])[0, 3:].tolist() == [2, 0, 0]
    np.testing.assert_array_equal(keep_largest(labels, []), labels)


def test_components_reach_through_slices() -> None:
    labels = np.zeros((3, 4, 4), np.int64)
    labels[:, 0, 0] = 1
    labels[0, 2:, 2:] = 1
    found = keep_largest(labels, [1])
    assert found[0, 3, 3] == 1
    assert found[:, 0, 0].tolist() == [0, 0, 0]


def _spots() -> np.ndarray:
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 2:8, 2:8] = image[0, 15:17, 15:17] = 1
    return image


def test_masks_are_cleaned_and_probabilities_are_not() -> None:
    plain, cleaned = (
        Predictor(Nearest(2), plan=plan_of(2), keep_largest=kept) for kept in ((), (1,))
    )
    assert plain(_spots()).sum() == 40
    assert cleaned(_spots()).sum() == 36
    np.testing.assert_array_equal(cleaned.probabilities(_spots()), plain.probabilities(_spots()))
    assert Ensemble([plain, cleaned])(_spots()).sum() == 40
    assert Ensemble([cleaned, cleaned])(_spots()).sum() == 36


def test_a_run_s_own_is_applied_unless_told_otherwise(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    Postprocessing(keep_largest=(255,)).save(run / "postprocessing.json")
    predictor = Predictor.from_run(run, device="cpu")
    assert predictor.keep_largest == (1,)
    images = trained[0] / "images"
    for options, name in (((), "cleaned"), (("--no-postprocessing",), "plain")):
        result = invoke("predict", run, images, tmp_path / name, "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
    for path in sorted((tmp_path / "plain").glob("*.png")):
        plain, cleaned = (
            np.array(Image.open(tmp_path / name / path.name)) for name in ("plain", "cleaned")
        )
        np.testing.assert_array_equal(cleaned, keep_largest(plain, [255]))
    # They are two different results.
    result = invoke("predict", run, images, tmp_path / "plain", "--device", "cpu")
    assert result.exit_code == 1
    assert "keep largest unknown, now [1]" in " ".join(result.output.split())
    # It is determined on the first ones only.
    (run / "postprocessing.json").unlink()
    for name, code in (("cleaned", 1), ("plain", 0)):
        masks = (tmp_path / name, trained[0], "--allow-extra", "--allow-missing")
        result = invoke("evaluate", *masks, "--run", run, "--find-postprocessing")
        assert result.exit_code == code, result.output


def test_that_of_earlier_weights_is_not_applied(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    save_postprocessing(Postprocessing(keep_largest=(255,)), run)
    assert Predictor.from_run(run, device="cpu").keep_largest == (1,)
    best = Run.open(run).weights()
    weights = load_file(best)
    name = max(weights)
    with safe_open(best, "pt") as file:
        save_file({**weights, name: weights[name] + 1}, best, file.metadata())
    with pytest.warns(UserWarning, match=r"postprocessing\.json is not applied"):
        assert Predictor.from_run(run, device="cpu").keep_largest == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1, "keep_largest": [3]}', r"keep_largest: got 3, expected some of \(255,\)"),
        ('{"schema": 1, "keep_largest": [0]}', "keep_largest: got 0"),
        ('{"keep_largest": "all"}', "keep_largest"),
        ('{"schema": 99}', "newer version"),
        ("[]", "expected a JSON object"),
    ],
)
def test_what_cannot_be_applied_is_an_error(
    trained: Trained, tmp_path: Path, content: str, message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    (run / "postprocessing.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        Predictor.from_run(run, device="cpu")
    assert "postprocessing.json cannot be read" in str(caught.value)
    assert json.loads(content) is not None
