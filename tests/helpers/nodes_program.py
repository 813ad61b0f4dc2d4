"""Run by a launcher on each of two nodes: a training that only a signal ends.

Argument: the run's folder, which both see.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ranks_program import cases
from run_helpers import TINY, tiny_config

from swin_umamba.train import train

torch.set_num_threads(1)
made = cases()
config = tiny_config(
    model_options={**TINY, "drop_path_rate": 0.0}, batch_size=4, iterations=1_000_000
)
assert train(config, made[:2], made[2:], Path(sys.argv[1])).stopped
