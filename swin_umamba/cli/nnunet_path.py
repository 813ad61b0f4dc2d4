"""`swin-umamba nnunet-path`: the export that lets nnU-Net find our trainers."""

from __future__ import annotations

import importlib.util
import os
import shlex

from swin_umamba.cli.console import out, warning
from swin_umamba.nnunet import TRAINER_FOLDER, how_to_install

VARIABLE = "nnUNet_extTrainer"


def nnunet_path() -> None:
    """Print the shell command with which nnU-Net finds the Swin-UMamba trainers.

    Run it in a shell, or add it to the shell's startup file: eval "$(swin-umamba nnunet-path)"

    Folders already in nnUNet_extTrainer are kept.
    """
    own = str(TRAINER_FOLDER)
    others = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path.strip()]
    paths = os.pathsep.join([*(path for path in others if path != own), own])
    out.print(f"export {VARIABLE}={shlex.quote(paths)}", soft_wrap=True)
    if importlib.util.find_spec("nnunetv2") is None:
        warning(f"nnunetv2 is not installed here: {how_to_install()}")
