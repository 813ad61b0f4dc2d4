"""What the cache keeps of datasets: how much, where, and how to be rid of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swin_umamba.common.files import cache_dir
from swin_umamba.common.locks import locked
from swin_umamba.common.names import file_name
from swin_umamba.data.prepare.cache import PREPARE_LOCK, PREPROCESSED, VolumeOnDisk
from swin_umamba.errors import UserError


@dataclass(frozen=True)
class Kept:
    """One folder of the cache: of a preprocessed dataset, or of something else."""

    path: Path
    files: int
    bytes: int


def bytes_of(volume: VolumeOnDisk) -> int:
    """What a preprocessed case takes on disk."""
    return sum(volume.path(part).stat().st_size for part in VolumeOnDisk.PARTS)


def kept_datasets() -> list[Kept]:
    """Every dataset in the cache, by name."""
    return [_kept(path) for path in _folders(cache_dir() / PREPROCESSED)]


def kept_otherwise() -> list[Kept]:
    """What else is in the cache, such as downloads."""
    return [_kept(path) for path in _folders(cache_dir()) if path.name != PREPROCESSED]


def clear_dataset(name: str) -> Kept:
    """Remove what is kept of a dataset of that name; returns what it was.

    Raises UserError if there is none, or while it is being prepared.
    """
    for kept in kept_datasets():
        if kept.path.name == file_name(name):
            # The lock's own file goes with the folder, after all else.
            with locked(kept.path, "preparation of this dataset", name=PREPARE_LOCK):
                for path in list(kept.path.iterdir()):
                    if path.name != PREPARE_LOCK:
                        remove(path)
            remove(kept.path)
            return kept
    names = ", ".join(kept.path.name for kept in kept_datasets()) or "none"
    raise UserError(f"the cache holds no dataset {name!r}; it has {names}")


def remove(path: Path) -> None:
    """Remove a file or a folder. Raises UserError for what cannot be removed."""
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


def _kept(path: Path) -> Kept:
    files = [path] if not path.is_dir() else [p for p in path.rglob("*") if p.is_file()]
    return Kept(path, len(files), sum(file.lstat().st_size for file in files))
