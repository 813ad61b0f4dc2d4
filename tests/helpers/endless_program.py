"""Run by `test_processes` in each process of a launcher: a training that only a signal ends.

Arguments: the run folder, and a folder in which each process reports by a file that it trains.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from run_helpers import go, tiny_config

from swin_umamba.train import Progress


def _main(run: Path, alive: Path) -> None:
    torch.set_num_threads(1)

    def on_progress(progress: Progress) -> None:
        if progress.iteration == 3:
            (alive / str(os.getpid())).touch()

    config = tiny_config(iterations=10**6, validate_every=10**6, batch_size=2)
    result = go(run, config, on_progress=on_progress)
    (alive / str(os.getpid())).write_text(str(result.signal))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
