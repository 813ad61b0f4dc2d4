"""Run by a launcher in each of its processes: pretrainings to compare with one process's.

Argument: a folder to write to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pretrain_helpers import TINY, go_pretrain, tiny_pretraining

from swin_umamba.loop.world import World

PLAIN = {**TINY, "drop_path_rate": 0.0}  # dropped paths are each process's own
CONFIGS: dict[str, dict[str, Any]] = {
    "classes": {"model_options": PLAIN},
    "pixels": {"model_options": PLAIN, "task": "pixels", "ema": None},
}


def _main(folder: Path) -> None:
    torch.set_num_threads(1)
    assert World("cpu").size == 2
    for name, changes in CONFIGS.items():
        go_pretrain(folder / name, tiny_pretraining(**changes))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
