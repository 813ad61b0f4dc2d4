"""Run by `warm`: imports once what its programs need, and forks a process for each of them.

Argument: the descriptor of a socket, on which requests come with two more, to write to: how the
program ended, and what it prints.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

import run_helpers  # noqa: F401
import torch._dynamo
import torch.distributed.fsdp  # noqa: F401
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

import swin_umamba.cli.application
import swin_umamba.cli.train
import swin_umamba.pretrain  # noqa: F401


def become(words: list[str], env: dict[str, str]) -> NoReturn:
    """Do and end as `python WORDS` would in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    code: Any = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 (printed, as by the interpreter)
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Forked:
    """What a launcher uses of subprocess.Popen, for a process that has imported already."""

    def __init__(
        self,
        args: tuple[str, ...],
        env: dict[str, str],
        stdout: IO[str] | None,
        stderr: IO[str] | None,
        start_new_session: bool,
    ) -> None:
        assert args[:2] == (sys.executable, "-u")
        assert start_new_session
        self.args, self.returncode = args, None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number, file in ((1, stdout), (2, stderr)):
                if file is not None:
                    os.dup2(file.fileno(), number)
            os.closerange(3, 1024)
            become(list(args[2:]), env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.02)
        return self.returncode


def _supervise(request: dict[str, Any], status: int, output: int) -> NoReturn:
    """Start the program, and write its process id and, once it has ended, its exit code."""
    pid = os.fork()
    if pid == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 1024)
        subprocess_handler.Popen = Forked
        os.chdir(request["folder"])
        become(request["words"], request["env"])
    os.close(output)
    os.write(status, f"{pid}\n".encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _main(requests: socket.socket) -> NoReturn:
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 1 << 20, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            _supervise(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
