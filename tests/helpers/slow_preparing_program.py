"""Run by `test_processes` in each process of a launcher: training first prepares, which takes long.

Arguments: seconds that each case takes, seconds that processes wait for each other at most, and
what `swin-umamba` is given.
"""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch

from swin_umamba.cli import app
from swin_umamba.data.prepare import cache

each, patience = float(sys.argv[1]), timedelta(seconds=float(sys.argv[2]))
one_at_a_time = threading.Lock()
joined, written = torch.distributed.init_process_group, cache._write


def join(*arguments: Any, **options: Any) -> None:
    joined(*arguments, **{**options, "timeout": patience})


def write(*arguments: Any) -> None:
    with one_at_a_time:
        time.sleep(each)
    written(*arguments)


torch.distributed.init_process_group = join
cache._write = write
app(sys.argv[3:])
