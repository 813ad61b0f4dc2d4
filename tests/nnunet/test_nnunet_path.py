"""`swin-umamba nnunet-path`, and the folder it names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.nnunet import TRAINER_FOLDER

HERE = importlib.util.find_spec("nnunetv2") is not None
# The original implementation's names.
TRAINERS = {
    "nnUNetTrainerSwinUMamba",
    "nnUNetTrainerSwinUMambaScratch",
    "nnUNetTrainerSwinUMambaD",
    "nnUNetTrainerSwinUMambaDScratch",
    # With an encoder of VMamba's second generation.
    "nnUNetTrainerSwinUMambaV2",
    "nnUNetTrainerSwinUMambaV2Scratch",
    "nnUNetTrainerSwinUMambaDV2",
    "nnUNetTrainerSwinUMambaDV2Scratch",
    # As nnU-Net names its own short ones.
    "nnUNetTrainerSwinUMambaScratch_5epochs",
    "nnUNetTrainerSwinUMambaDScratch_5epochs",
}


def _found_by_a_shell(before: str | None) -> str:
    """nnUNet_extTrainer after what the command prints has run, with that value before."""
    environment = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    if before is not None:
        environment["nnUNet_extTrainer"] = before
    printed = CliRunner().invoke(app, ["nnunet-path"], env={"nnUNet_extTrainer": before})
    assert printed.exit_code == 0
    done = subprocess.run(
        ["sh", "-c", f'{printed.stdout}\nprintf %s "$nnUNet_extTrainer"'],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_shell_takes_what_it_prints() -> None:
    assert _found_by_a_shell(None) == str(TRAINER_FOLDER)


def test_keeps_other_folders() -> None:
    other = "/some folder/it's own"
    both = f"{other}{os.pathsep}{TRAINER_FOLDER}"
    assert _found_by_a_shell(other) == both
    assert _found_by_a_shell(both) == both


@pytest.mark.skipif(HERE, reason="nnunetv2 is installed")
def test_says_that_nnunet_is_missing() -> None:
    line = CliRunner().invoke(app, ["nnunet-path"]).stderr
    # Pinned, so that pip does not install another build of PyTorch.
    assert f"pip install 'nnunetv2>=2.8' torch=={torch.__version__}" in line


def test_the_folder_holds_the_release_s_trainers_and_nothing_that_could_clash() -> None:
    (module,) = pkgutil.iter_modules([str(TRAINER_FOLDER)])
    # nnU-Net imports it by this name, with the folder first in sys.path.
    assert module.name == "swin_umamba_trainers"
    tree = ast.parse((TRAINER_FOLDER / f"{module.name}.py").read_text(encoding="utf-8"))
    assert {node.name for node in tree.body if isinstance(node, ast.ClassDef)} == TRAINERS


@pytest.mark.skipif(HERE, reason="nnunetv2 is installed")
def test_trainers_say_what_they_need() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nnunetv2>=2\.8' torch=="):
        importlib.import_module("swin_umamba.nnunet.trainers.swin_umamba_trainers")


@pytest.mark.slow
def test_recipe_needs_neither_nnunet_nor_training() -> None:
    code = (
        "import sys, swin_umamba.nnunet.recipe\n"
        "print([n for n in sys.modules if n.startswith(('nnunetv2', 'swin_umamba.train'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
