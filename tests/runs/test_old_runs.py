"""Runs of earlier versions open, resume and keep their numbers; new fields do not interfere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_helpers import assert_same_weights, go, tiny_config

from swin_umamba.data import Plan
from swin_umamba.errors import UserError
from swin_umamba.runs import Run, TrainConfig

# The content of config.json and plan.json before they had a schema number.
CONFIG_FIELDS = (
    *("preset", "dataset", "fold", "model", "model_options", "in_channels", "num_classes"),
    *("deep_supervision", "pretrained", "freeze_iterations", "patch_size", "batch_size"),
    *("accumulate", "foreground", "augment", "augmentation", "batch_dice", "iterations", "minutes"),
    *("decay_iterations", "lr", "min_lr", "warmup", "weight_decay", "eps", "betas", "clip_norm"),
    *("ema", "validate_every", "checkpoint_every", "patience", "max_skipped", "max_returns"),
    *("overlap", "seed", "device", "amp", "workers", "compile", "cuda_graph"),
    *("checkpoint_activations", "tensorboard"),
)
OLD_PLAN: dict[str, Any] = {
    "dataset": "Dataset001_Discs",
    "channel_names": ["CT"],
    "files_per_image": 1,
    "labels": {"background": 0, "disc": 1},
    "values": [0, 1],
    "ignore_label": None,
    "file_ending": ".nii.gz",
    "normalization": ["ct"],
    "intensities": [{"mean": 1, "std": 0.5, "median": 1.0, "low": 0.0, "high": 2.0}],
    "axis": 2,
    "spacing": [1, 0.5],
    "patch_size": [64, 96],
}


def of_schema_1(config: TrainConfig, **changes: Any) -> dict[str, Any]:
    values = json.loads(config.to_json())
    values["cuda_graph"] = False  # there was no "auto"
    return {name: values[name] for name in CONFIG_FIELDS} | changes


def test_an_old_run_goes_on_as_it_would_have(tmp_path: Path) -> None:
    go(tmp_path / "whole", tiny_config(iterations=6))
    run = tmp_path / "run"
    go(run, tiny_config(iterations=3, decay_iterations=6))
    shutil.rmtree(tmp_path / "whole")
    go(tmp_path / "whole", tiny_config(iterations=6, decay_iterations=6))
    old = of_schema_1(tiny_config(iterations=3, decay_iterations=6))
    (run / "config.json").write_text(json.dumps(old))
    (run / "plan.json").write_text(json.dumps(OLD_PLAN))
    opened = Run.open(run)
    assert opened.config == tiny_config(iterations=3, decay_iterations=6).changed(
        {"model_options": old["model_options"], "cuda_graph": False}
    )
    go(run, opened.config.changed({"iterations": 6}), resume=True)
    assert_same_weights(run, tmp_path / "whole")
    assert json.loads((run / "config.json").read_text())["schema"] == TrainConfig.SCHEMA


def test_a_field_that_came_later_is_no_difference(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(run, tiny_config(iterations=2, clip_norm=3.0))
    old = of_schema_1(tiny_config(iterations=2, clip_norm=3.0))
    del old["clip_norm"]  # as if it were new
    (run / "config.json").write_text(json.dumps(old))
    go(run, tiny_config(iterations=4, clip_norm=3.0), resume=True)
    with pytest.raises(UserError, match=r"clip_norm is 3\.0, not 4\.0"):
        go(run, tiny_config(iterations=4, clip_norm=4.0), resume=True)
    with pytest.raises(UserError, match=r"cannot resume: .*lr is 0\.001, not 0\.5"):
        go(run, tiny_config(iterations=4, clip_norm=3.0, lr=0.5), resume=True)


def test_what_old_versions_took_means_what_it_meant() -> None:
    old = of_schema_1(TrainConfig(), augment="False", iterations=1e3, augmentation={"p_gamma": 5})
    config = TrainConfig.from_values(old)
    assert config.augment is True  # non-empty text counted as true, so training used augmentation
    assert (config.iterations, type(config.iterations)) == (1000, int)
    assert (
        config.augmentation_numbers()
        == TrainConfig(augmentation={"p_gamma": 1.0}).augmentation_numbers()
    )
    with pytest.raises(ValueError, match="augment: got 'False'"):
        TrainConfig.from_values({**old, "schema": 2})


def test_old_plans_treat_images_as_they_did(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(OLD_PLAN))
    plan = Plan.load(tmp_path / "plan.json")
    assert (plan.crop_to_nonzero, plan.mask_normalization) == (False, ())
    assert (plan.regions, plan.regions_class_order, plan.batch_size) == (None, None, None)
    assert (plan.axis, plan.spacing, plan.patch_size) == (2, (1.0, 0.5), (64, 96))
    assert Plan.from_json(plan.to_json()) == plan
    for name in OLD_PLAN:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            Plan.from_values({n: v for n, v in OLD_PLAN.items() if n != name})


def test_best_weights_are_meant_unless_there_are_none(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(run, tiny_config(iterations=2, validate_every=1))
    opened = Run.open(run)
    assert opened.weights() == run / "best.safetensors"
    assert opened.weights("last") == run / "model.safetensors"
    assert [record["iteration"] for record in opened.log()] == [1, 2]
    assert opened.plan is opened.split is opened.environment is opened.postprocessing is None
    (run / "best.safetensors").unlink()
    assert opened.weights() == run / "model.safetensors"
    with pytest.raises(ValueError, match="checkpoint: got 'first'"):
        opened.weights("first")
    (run / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"run is not a finished training run: .*model\.safetensors"
    ):
        opened.weights()
    with pytest.raises(UserError, match=r"plan\.json is missing"):
        opened.require_plan()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="is not a training run"):
            Run.open(folder)


def test_a_lost_plan_or_split_is_no_run_without_one(tmp_path: Path) -> None:
    """Images would be treated as if they had not been preprocessed for training."""
    (tmp_path / "config.json").write_text(TrainConfig().to_json())
    assert (Run.open(tmp_path).plan, Run.open(tmp_path).split) == (None, None)
    (tmp_path / "config.json").write_text(TrainConfig(dataset="nodules").to_json())
    run = Run.open(tmp_path)
    for name, file in (("plan", "plan.json"), ("split", "splits.json")):
        with pytest.raises(UserError, match=rf"{file} is missing: .* trained from nodules"):
            getattr(run, name)
