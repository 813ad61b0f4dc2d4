"""Preprocessed cases on disk, memory-mapped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import cache_dir, replacing
from swin_umamba.common.names import file_name
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset, read_case
from swin_umamba.data.io.formats import files_of
from swin_umamba.data.prepare.digests import FileDigests
from swin_umamba.data.prepare.mapped import MappedArray, save_array
from swin_umamba.data.prepare.plan import Plan
from swin_umamba.data.sampling.case import Case
from swin_umamba.data.sampling.volumes import Positions, find_positions
from swin_umamba.errors import UserError

# Increase this whenever the same files and plan would produce different content.
_VERSION = 5
# The fields of a plan that determine the content.
_DECIDING = (
    *("values", "ignore_label", "regions", "normalization", "axis", "spacing"),
    *("crop_to_nonzero", "mask_normalization"),
)
PREPROCESSED = "preprocessed"  # folder in the cache
PREPARE_LOCK = ".prepare.lock"  # subfolder of a dataset's folder


class VolumeOnDisk:
    """A volume in three .npy files, memory-mapped on first use in each process; see Volume.

    image: (Z, C, H, W) float32; mask: (Z, H, W) int16; positions as in `data.volumes`.
    """

    PARTS = ("image", "mask", "positions")

    def __init__(self, name: str, stem: Path, masked: tuple[int, ...] = ()) -> None:
        self.name, self.masked = name, masked
        self.stem = stem
        self._arrays: dict[str, MappedArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would copy the whole file.
        return {**self.__dict__, "_arrays": {}}

    @property
    def slices(self) -> int:
        return int(self._array("image").shape[0])

    @property
    def channels(self) -> set[int]:
        return {int(self._array("image").shape[1])}

    def image(self, index: int) -> npt.NDArray[np.float32]:
        image: npt.NDArray[np.float32] = self._array("image")[index]
        return image

    def mask(self, index: int) -> npt.NDArray[Any]:
        mask: npt.NDArray[Any] = self._array("mask")[index]
        return mask

    def positions(self) -> Positions:
        return self._array("positions")

    def path(self, part: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{part}.npy")

    def _array(self, part: str) -> npt.NDArray[Any]:
        if part not in self._arrays:
            self._arrays[part] = MappedArray(self.path(part))
        return self._arrays[part].array


@dataclass(frozen=True)
class _Place:
    volume: VolumeOnDisk
    index: int


class CachedCases(Sequence[Case]):
    """Preprocessed slices on disk, as a sequence of cases that are read on access.

    volumes: the volumes the slices belong to, in order. Pickles without content, for workers.
    """

    def __init__(self, volumes: Sequence[VolumeOnDisk]) -> None:
        self.volumes = list(volumes)
        self._places = [_Place(volume, i) for volume in self.volumes for i in range(volume.slices)]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> list[Case]: ...
    def __getitem__(self, index: int | slice) -> Case | list[Case]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        volume, i = self._places[index].volume, self._places[index].index
        name = f"{volume.name}, slice {i}" if volume.slices > 1 else volume.name
        mask = np.asarray(volume.mask(i), dtype=np.int64)
        return Case(name, volume.image(i), mask, volume.name)


def preprocess(
    dataset: Dataset,
    plan: Plan,
    names: Sequence[str] | None = None,
    folder: Path | None = None,
    *,
    digests: FileDigests | None = None,
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> CachedCases:
    """Preprocess cases by the plan, or find them in the cache.

    names: cases to preprocess, all by default; the result has their order. folder: the cache
    folder, by default preprocessed/<dataset> in `files.cache_dir`. Entries are keyed by a hash of
    the case name, its files' content and the plan: after any change the case is preprocessed again.
    digests: of files already hashed. Files are written atomically, by any number of processes.
    on_progress receives the number of cases done and the total.

    Raises UserError, naming the file, for anything missing, damaged, or not matching the plan, and
    if the folder is not writable.
    """
    folder = preprocessed_folder(dataset.name) if folder is None else folder
    digests = FileDigests() if digests is None else digests
    by_name = {case.name: case for case in dataset.cases}
    names = list(by_name) if names is None else names
    cases = [by_name[name] if name in by_name else dataset.case(name) for name in names]
    volumes = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        try:
            for volume in pool.map(lambda case: _cached(case, plan, folder, digests), cases):
                volumes.append(volume)
                if on_progress is not None:
                    on_progress(len(volumes), len(cases))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return CachedCases(volumes)


def preprocessed_folder(name: str) -> Path:
    """The default folder of a dataset with that name."""
    return cache_dir() / PREPROCESSED / file_name(name)


def _cached(files: CaseFiles, plan: Plan, folder: Path, digests: FileDigests) -> VolumeOnDisk:
    key = _key(files, plan, digests)
    # The longest file name decides where a long name is cut.
    longest = f"-{key}.positions.npy"
    stem = file_name(files.name, longest).removesuffix(".positions.npy")
    masked = tuple(i for i, inside in enumerate(plan.mask_normalization) if inside)
    volume = VolumeOnDisk(files.name, folder / stem, masked)
    if _whole(volume):
        # Set the time of last use, by which `kept` decides what to remove; file systems may not
        # update it themselves. The cache may be read-only.
        with suppress(OSError):
            path = volume.path("positions")
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    else:
        _write(volume, files, plan)
    return volume


def _key(files: CaseFiles, plan: Plan, digests: FileDigests) -> str:
    facts = dataclasses.asdict(plan)
    head = {"version": _VERSION, "name": files.name, **{name: facts[name] for name in _DECIDING}}
    if "ct" in plan.normalization:
        head["intensities"] = facts["intensities"]
    digest = hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=10)
    if files.mask is None:
        raise UserError(f"{files.images[0]} has no mask to train with")
    for path in (*files.images, files.mask):
        for part in files_of(path):
            digest.update(digests.of(part).encode())
        # Order and formats matter as well as content.
        digest.update(path.suffix.encode() + b"\0")
    return digest.hexdigest()


def _whole(volume: VolumeOnDisk) -> bool:
    """Whether the files exist with their full length; positions are written last."""
    if not volume.path("positions").is_file():
        return False
    try:
        same = volume.image(0).shape[1:] == volume.mask(0).shape
        return same and volume.positions().shape[1:] == (3,)
    except UserError:
        return False


def _write(volume: VolumeOnDisk, files: CaseFiles, plan: Plan) -> None:
    raw, classes = read_case(
        files, channels=plan.in_channels, values=plan.values, ignore_label=plan.ignore_label
    )
    assert classes is not None  # _key has refused cases without a mask
    mask = plan.preprocess_labels(classes, raw).astype(np.int16)
    parts: dict[str, npt.NDArray[Any]] = {
        "image": plan.preprocess(raw),
        "mask": mask,
        "positions": find_positions(
            list(mask),
            files.name,
            regions=plan.region_classes,
            annotated=plan.ignore_label is not None,
        ),
    }
    for part, array in parts.items():
        with replacing(volume.path(part)) as partial:
            save_array(partial, array)
