"""Folder locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swin_umamba.common.locks import locked
from swin_umamba.errors import UserError

HOLDER = """
import multiprocessing, sys, time; from pathlib import Path
from swin_umamba.common.locks import locked
with locked(Path(sys.argv[1]), "training run"):
    if len(sys.argv) > 2:
        child = multiprocessing.get_context(sys.argv[2]).Process(target=time.sleep, args=(60,))
        child.start()
        print(child.pid, flush=True)
    else:
        print(0, flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_one_at_a_time(tmp_path: Path) -> None:
    process, _ = holder(tmp_path / "run")
    with process:
        began = time.monotonic()
        refused = pytest.raises(UserError, match=r"run is in use by another training run")
        with refused, locked(tmp_path / "run", "training run"):
            pass
        assert time.monotonic() - began < 5
        with locked(tmp_path / "run", "training run", name=".other-lock"):
            pass  # another lock of the same folder
        process.communicate(b"")
    with locked(tmp_path / "run", "training run"):
        pass


def test_waiting_for_the_other_to_end(tmp_path: Path) -> None:
    process, _ = holder(tmp_path)
    with process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(UserError, match="in use"), locked(tmp_path, "preparation", wait=0.2):
            pass
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        with locked(tmp_path, "preparation", wait=-1):
            pass


def test_the_children_of_a_killed_process_do_not_hold_its_lock(tmp_path: Path) -> None:
    process, child = holder(tmp_path, "fork")
    with process:
        process.kill()
        process.wait()
        os.kill(child, 0)  # which lives
        try:
            # The child releases it when it is first scheduled.
            with locked(tmp_path, "training run", wait=10.0):
                pass
            os.kill(child, 0)  # still
        finally:
            os.kill(child, signal.SIGKILL)


def test_within_a_process_too(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="in use")
    with locked(tmp_path, "training run"), refused, locked(tmp_path, "training run"):
        pass
    with (
        pytest.raises(UserError, match="cannot make the folder"),
        locked(Path(os.devnull) / "x", "run"),
    ):
        pass


def test_what_the_dead_left_is_swept_by_who_comes_next(tmp_path: Path) -> None:
    process, _ = holder(tmp_path)
    process.communicate(b"")
    left = tmp_path / f".{process.pid}.partial.x.npy"
    left.touch()
    (tmp_path / "x.npy").touch()
    with locked(tmp_path, "preparation"):
        assert not left.exists()
        assert (tmp_path / "x.npy").exists()
