"""What the cache contains, how large it is, and how to remove it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from swin_umamba.common.files import cache_dir
from swin_umamba.common.locks import locked
from swin_umamba.common.names import file_name
from swin_umamba.data.prepare.cache import PREPARE_LOCK, PREPROCESSED, VolumeOnDisk
from swin_umamba.errors import UserError

UNUSED_DAYS = 30.0
"""Days without being read after which cases are removed when their dataset is prepared again."""
_DAY = 86400.0  # seconds


@dataclass(frozen=True)
class Kept:
    """One folder of the cache: a preprocessed dataset, or something else."""

    path: Path
    files: int
    bytes: int
    used: float  # when one of its files was last read or written, in seconds since 1970


def bytes_of(volume: VolumeOnDisk) -> int:
    """Disk usage of a preprocessed case."""
    return sum(volume.path(part).stat().st_size for part in VolumeOnDisk.PARTS)


def kept_datasets() -> list[Kept]:
    """Every dataset in the cache, by name."""
    return [_kept(path) for path in _folders(cache_dir() / PREPROCESSED)]


def kept_otherwise() -> list[Kept]:
    """Everything else in the cache, such as downloads."""
    return [_kept(path) for path in _folders(cache_dir()) if path.name != PREPROCESSED]


def clear_dataset(name: str) -> Kept:
    """Remove a dataset from the cache, and return what was removed.

    Raises UserError if there is none, or while it is being prepared.
    """
    for kept in kept_datasets():
        if kept.path.name == file_name(name):
            # The lock file is removed last, with the folder.
            with locked(kept.path, "preparation of this dataset", name=PREPARE_LOCK):
                for path in list(kept.path.iterdir()):
                    if path.name != PREPARE_LOCK:
                        remove(path)
            remove(kept.path)
            return kept
    names = ", ".join(kept.path.name for kept in kept_datasets()) or "none"
    raise UserError(f"the cache holds no dataset {name!r}; it has {names}")


def clear_unused(folder: Path, days: float = UNUSED_DAYS) -> int:
    """Remove preprocessed cases of a dataset that were not used for the given number of days.

    The caller holds the folder's lock. Returns the number of bytes freed.
    """
    cases: dict[str, list[Path]] = {}
    for path in folder.glob("*.npy"):
        cases.setdefault(path.name.rsplit(".", 2)[0], []).append(path)
    oldest, freed = time.time() - days * _DAY, 0
    for parts in cases.values():
        found = [path.stat() for path in parts]
        if max(map(_used, found)) < oldest:
            freed += sum(facts.st_size for facts in found)
            for path in parts:
                remove(path)
    return freed


def clear_all_unused(days: float) -> list[Kept]:
    """`clear_unused` in every dataset; returns those that lost something, and how much."""
    cleared = []
    for kept in kept_datasets():
        if not kept.path.is_dir():
            continue
        with locked(kept.path, "preparation of this dataset", name=PREPARE_LOCK):
            if freed := clear_unused(kept.path, days):
                cleared.append(replace(kept, bytes=freed))
    return cleared


def remove(path: Path) -> None:
    """Remove a file or folder. Raises UserError if that fails."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename}: {error.strerror or error}") from error


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.iterdir())


def _used(facts: os.stat_result) -> float:
    return max(facts.st_atime, facts.st_mtime)


def _kept(path: Path) -> Kept:
    files = [path] if not path.is_dir() else [p for p in path.rglob("*") if p.is_file()]
    facts = [file.lstat() for file in files]
    used = max(map(_used, facts or [path.lstat()]))
    return Kept(path, len(files), sum(fact.st_size for fact in facts), used)
