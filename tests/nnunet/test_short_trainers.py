"""The trainers of five epochs, from raw data to scores, by nnU-Net's own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data_helpers import write_nnunet

from swin_umamba.nnunet import TRAINER_FOLDER

pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", exc_type=ImportError)

# Found first under the trainers' own names: epochs of two iterations in place of 250, small models.
SHORTER = """
from functools import partial

from swin_umamba.nnunet import recipe
from swin_umamba.nnunet.trainers import swin_umamba_trainers as real

recipe.create_model = partial(recipe.create_model, dims=(8, 16), depths=(1, 1), d_state=2)


class Shorter:
    def initialize(self):
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
        super().initialize()


for name in [name for name in dir(real) if name.endswith("_5epochs")]:
    globals()[name] = type(name, (Shorter, getattr(real, name)), {})
"""
COMMANDS = {
    "prepare": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints:"
    "plan_and_preprocess_entry",
    "train": "nnunetv2.run.run_training:run_training_entry",
    "predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("nnunet")
    write_nnunet(root / "raw" / "Dataset901_Boxes", cases=5, shape=(64, 72))
    (root / "shorter").mkdir()
    (root / "shorter" / "shorter_trainers.py").write_text(SHORTER)
    return {
        **os.environ,
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_extTrainer": f"{root / 'shorter'}:{TRAINER_FOLDER}",
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "f",
    }


def _run(environment: dict[str, str], command: str, *words: object) -> str:
    if command == "train":  # processes that augment would take longer to start than to train
        environment = {**environment, "nnUNet_n_proc_DA": "0"}
    module, function = COMMANDS[command].split(":")
    program = f"from {module} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(environment: dict[str, str]) -> dict[str, str]:
    _run(environment, "prepare", "-d", 901, "-c", "2d", "-np", 1, "--verify_dataset_integrity")
    plans = Path(environment["nnUNet_preprocessed"], "Dataset901_Boxes", "nnUNetPlans.json")
    values = json.loads(plans.read_text())
    values["configurations"]["2d"] |= {"batch_size": 2, "patch_size": [64, 64]}
    plans.write_text(json.dumps(values))
    return environment


@pytest.mark.slow
@pytest.mark.parametrize("model", ["SwinUMamba", "SwinUMambaD"])
def test_from_raw_data_to_scores(prepared: dict[str, str], model: str, tmp_path: Path) -> None:
    trainer = f"nnUNetTrainer{model}Scratch_5epochs"
    said = _run(prepared, "train", 901, "2d", 0, "-tr", trainer, "-device", "cpu")
    assert "Epoch 4" in said
    assert "Epoch 5" not in said
    assert "Training done." in said
    folder = Path(prepared["nnUNet_results"], "Dataset901_Boxes", f"{trainer}__nnUNetPlans__2d")
    scores = json.loads((folder / "fold_0" / "validation" / "summary.json").read_text())
    assert len(scores["metric_per_case"]) == 1
    assert 0 <= scores["foreground_mean"]["Dice"] <= 1
    images = Path(prepared["nnUNet_raw"], "Dataset901_Boxes", "imagesTr")
    words = ("-i", images, "-o", tmp_path, "-d", 901, "-c", "2d", "-tr", trainer, "-f", 0)
    _run(prepared, "predict", *words, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta")
    assert len(list(tmp_path.glob("*.png"))) == 5
