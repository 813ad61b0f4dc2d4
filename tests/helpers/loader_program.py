"""Run by `test_processes`: a training's loader with two workers, which waits to be killed.

Argument: a folder to lock, as that of a run. Prints the workers' process ids.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

from run_helpers import disc_case

from swin_umamba.common.locks import locked
from swin_umamba.data import PatchLoader, PatchSampler


def _main(folder: Path) -> None:
    with locked(folder, "training run"):
        sampler = PatchSampler([disc_case(0)], patch_size=(16, 16), batch_size=2)
        with PatchLoader(sampler, workers=2) as batches:
            next(batches)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            time.sleep(120)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
