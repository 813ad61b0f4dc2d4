"""Python programs in processes that have imported PyTorch and this package already.

Each would need four seconds of a core for that. They are forked, without a further start of Python,
by a server of this test process; processes that a launcher starts are forked by the launcher.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
AVAILABLE = sys.platform == "linux"
_run = subprocess.run


@functools.cache
def _server() -> socket.socket:
    """A connection to the server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    path = os.pathsep.join([*(word for word in sys.path if word), str(HERE)])
    with theirs:
        subprocess.Popen(
            [sys.executable, HERE / "warm_server.py", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )
    return ours


class Warm:
    """What tests use of subprocess.Popen, for `python WORDS`."""

    def __init__(
        self, words: list[str], env: dict[str, str], cwd: str | Path | None = None
    ) -> None:
        self.words = words
        status, ended = os.pipe()
        output, printed = os.pipe()
        folder = str(cwd or Path.cwd())
        request = json.dumps({"words": words, "env": env, "folder": folder}).encode()
        try:
            socket.send_fds(_server(), [request], [ended, printed])
        finally:
            os.close(ended)
            os.close(printed)
        self.returncode: int | None = None
        self._output = os.fdopen(output)
        self._status = os.fdopen(status)
        self.pid = int(self._status.readline())

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.words, timeout or 0.0)
            self.returncode = int(self._status.readline())
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """What was printed, standard output and error together, up to the program's end."""
        end = time.monotonic() + timeout
        os.set_blocking(self._output.fileno(), False)
        parts: list[str] = []
        while not parts or parts[-1]:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._output], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self.words, timeout, "".join(parts))
            parts.append(self._output.read())
        self.wait(max(0.0, end - time.monotonic()))
        return "".join(parts), None

    def send_signal(self, kind: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, kind)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    words: list[str],
    *,
    cwd: str | Path | None = None,
    env: dict[str, str] | None = None,
    stdout: IO[str] | int | None = None,
    timeout: float = 300,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """subprocess.run for this Python, whose errors are part of what is printed; others as there."""
    python, *rest = words
    if python != sys.executable or rest[0] == "-c":
        if stdout is not None:
            options["stdout"] = stdout
        return _run(words, cwd=cwd, env=env, timeout=timeout, check=check, **options)
    process = Warm(rest, dict(os.environ) if env is None else env, cwd)
    try:
        printed, _ = process.communicate(timeout)
    finally:
        process.kill()
    if stdout is not None and not isinstance(stdout, int):
        stdout.write(printed)
    done = subprocess.CompletedProcess(words, process.wait(), printed, printed)
    if check:
        done.check_returncode()
    return done
