"""Partially written files: named after their process, and removed once it is dead.

A partial file lies in a folder of its own beside its target, `.partial-HOST-PID-START-RANDOM`.
Anything a library leaves beside the file it writes is removed with it, and the length of the
target's name does not matter.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PREFIX = ".partial-"
# Owner: host, process, its start time; then 8 random letters.
_OWNED = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]{{8}})-(\d+)-(\d+)-[0-9a-f]{{8}}")
_OLD = re.compile(r"\.(\d+)\.partial\..+", re.DOTALL)  # written by earlier versions
_SAFETENSORS = re.compile(r"\.tmp\w{6}")  # safetensors' own, beside the file it writes
_STALE = 24 * 3600.0  # seconds after which another host's partial file counts as abandoned
_LINKS = 40  # maximum number of links followed, as on Linux


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """A new, empty file with the ending of `target`, on its file system; removed at the end."""
    folder = target.parent / f"{PREFIX}{_owner()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        partial = folder / f"file{_suffix(target)}"
        partial.touch()
        yield partial
    finally:
        # Failing to remove a folder must not hide the original error.
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def private_file(target: Path) -> Iterator[Path]:
    """A new, empty file with the ending of `target`, in the temp folder; removed at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        partial = Path(folder) / f"file{_suffix(target)}"
        partial.touch()
        yield partial


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove what dead processes left half written in a folder.

    Files of live processes on this host stay, and files of other hosts stay for a day. alone: this
    process holds the folder's lock, so nobody else writes weights there; leftovers of safetensors,
    whose names contain no process, are then removed too.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # a folder that cannot be listed needs no cleaning
    for entry in entries:
        if _is_left(entry, alone):
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()


def is_partial(name: str) -> bool:
    """Whether a file of that name is being written, or was left by a process that wrote it."""
    return any(pattern.fullmatch(name) for pattern in (_OWNED, _OLD, _SAFETENSORS))


def followed(path: Path) -> Path:
    """The final target of a symbolic link, even if missing; any other path unchanged.

    Links of /proc, by which /dev/stdout leads to an open file, are not followed.
    """
    for _ in range(_LINKS):
        if not path.is_symlink() or _in_proc(path):
            return path
        path = path.parent / path.readlink()
    return path


def written_through(path: Path) -> bool:
    """Whether to write to a path directly: a FIFO, a device, or another process's open file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return _in_proc(path) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def own_descriptor(path: Path) -> int | None:
    """The file descriptor of this process that a path such as /dev/stdout refers to."""
    own = os.path.realpath(path.parent) == f"/proc/{os.getpid()}/fd"
    return int(path.name) if own and path.name.isdecimal() else None


def _in_proc(path: Path) -> bool:
    return os.path.realpath(path.parent).startswith("/proc/")


def _suffix(target: Path) -> str:
    """The ending from the first of the last two dots on, as in .nii.gz, limited in length."""
    return "".join(target.suffixes[-2:])[-32:]


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{_started(os.getpid())}"


@cache
def _host() -> str:
    """Identifies host, boot and PID namespace, within which a PID is unique."""
    facts = [os.uname().nodename]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with suppress(OSError):
            facts.append(Path(path).read_text().strip())
            break
    with suppress(OSError):
        facts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return f"{zlib.crc32(' '.join(facts).encode()):08x}"


def _started(pid: int) -> int:
    """Start time of a process in system ticks; 0 if unknown."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field, the program name in parentheses, may contain spaces and parentheses.
    return int(content.rpartition(")")[2].split()[19])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_left(entry: os.DirEntry[str], alone: bool) -> bool:
    if (found := _OWNED.fullmatch(entry.name)) is not None:
        host, pid, started = found[1], int(found[2]), int(found[3])
        if host == _host():
            return not (_alive(pid) and _started(pid) == started)
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE
        return False
    if (found := _OLD.fullmatch(entry.name)) is not None:
        return not _alive(int(found[1]))
    return alone and _SAFETENSORS.fullmatch(entry.name) is not None
