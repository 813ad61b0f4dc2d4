"""Using runs whose training has not ended gives a warning; others give none."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from swin_umamba.runs import Run, TrainConfig


def _run(folder: Path, scores: dict[int, float | None], last: int, **config: Any) -> Run:
    """A run with a log up to iteration `last`, 10 s each, with these validations."""
    folder.mkdir()
    lines = [
        {"iteration": i, "loss": 1.0, "lr": 1e-4, "seconds": 10.0 * i}
        | ({"dsc": scores[i]} if i in scores else {})
        for i in range(1, last + 1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"iterations": 8, "validate_every": 2, **config}
    (folder / "config.json").write_text(TrainConfig(**settings).to_json())
    return Run.open(folder)


FALLING = {2: 0.5, 4: 0.4, 6: 0.3}


@pytest.mark.parametrize(
    ("scores", "last", "config"),
    [
        ({}, 0, {}),
        ({2: 0.5}, 3, {}),
        (FALLING, 6, {}),
        (FALLING, 6, {"patience": 3}),
        (FALLING, 6, {"minutes": 5.0}),
    ],
)
def test_unfinished(
    tmp_path: Path, scores: dict[int, float | None], last: int, config: dict[str, Any]
) -> None:
    run = _run(tmp_path / "run", scores, last, **config)
    with pytest.warns(UserWarning, match=f"run has not finished .* at iteration {last} of 8,"):
        run.warn_if_unfinished()


@pytest.mark.parametrize(
    ("scores", "last", "config"),
    [
        ({8: None}, 8, {}),
        (FALLING, 6, {"patience": 2}),
        (FALLING, 6, {"minutes": 1.0}),
        ({5: 0.5}, 5, {"minutes": 2.0}),  # a validation out of turn, which only an end has
    ],
)
def test_finished(
    tmp_path: Path, scores: dict[int, float | None], last: int, config: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(tmp_path / "run", scores, last, **config).warn_if_unfinished()


def test_a_log_that_is_lost_or_damaged(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", {8: 0.5}, 8)
    (run.folder / "log.jsonl").write_text("{}\n")
    with pytest.warns(UserWarning, match=r"whether .*run is finished is unknown: .* in line 1"):
        run.warn_if_unfinished()
    (run.folder / "log.jsonl").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.warn_if_unfinished()
