"""Read tiles from a folder, a CSV file, an archive or a segmentation dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from swin_umamba.common.files import cache_dir, replacing, resolved, write_text
from swin_umamba.common.jsons import load_object
from swin_umamba.common.locks import locked
from swin_umamba.data.datasets import bare, nnunet
from swin_umamba.data.io.images import read_image
from swin_umamba.data.prepare.work import OnProgress
from swin_umamba.errors import UserError
from swin_umamba.pretrain.archives import is_archive, read_archive
from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.listing import Listing, list_classes, list_images
from swin_umamba.pretrain.patches import patches_of_dataset
from swin_umamba.pretrain.pixels import is_coloured, tile_of
from swin_umamba.pretrain.tiles import Tiles

FOLDER = "tiles"  # subfolder of the cache
READING = "Reading images"
_LOOKED_AT = 16  # images examined to determine whether they have colors
_PIXELS, _FACTS = "pixels.npy", "facts.json"


def read_tiles(
    path: Path, config: PretrainConfig, *, threads: int = 1, on_progress: OnProgress | None = None
) -> Tiles:
    """The images of a source as required by the config.

    path: a folder with a folder per class, or with plain images; a CSV file; an archive of tiles;
    or, for masked pixels, a segmentation dataset, whose images are normalized by its plan. Files
    are decoded once and cached, by one process at a time.

    Raises UserError, naming the file, for anything missing, damaged, or unsuitable for the task.
    """
    labelled = config.task == CLASSES
    if not path.exists():
        raise UserError(f"IMAGES: no file or folder at {path}")
    if path.is_dir() and _is_dataset(path):
        if labelled:
            raise UserError(
                f"{path} is a segmentation dataset, whose images have no classes: --labels none"
                " learns from the images alone"
            )
        return patches_of_dataset(path, config, threads=threads, on_progress=on_progress)
    if path.is_dir() and is_archive(path):
        return read_archive(path, labelled=labelled, channels=config.in_channels)
    listing = list_classes(path) if labelled else list_images(path)
    return _decoded(listing, config, threads, on_progress)


def _is_dataset(folder: Path) -> bool:
    own = (folder / bare.IMAGES).is_dir() and (folder / bare.MASKS).is_dir()
    return own or (folder / nnunet.DATASET).is_file()


def _decoded(
    listing: Listing, config: PretrainConfig, threads: int, on_progress: OnProgress | None
) -> Tiles:
    channels = config.in_channels or _channels(listing)
    if channels not in (1, 3):
        raise UserError(f"in_channels: got {channels}, expected 1 or 3 for files of images")
    side, digest = config.stored_side, listing.digest()
    name = resolved(listing.source).name
    folder = cache_dir() / FOLDER / f"{name}-{side}x{side}x{channels}-{digest[:16]}"
    with locked(folder, "pretraining that reads its images", wait=-1):
        if not (folder / _FACTS).is_file():
            _decode(listing, folder / _PIXELS, side, channels, threads, on_progress)
            write_text(folder / _FACTS, json.dumps({"digest": digest, "source": name}))
        load_object(folder / _FACTS, "facts of cached images")
    pixels = np.load(folder / _PIXELS, mmap_mode="r", allow_pickle=False)
    if pixels.shape != (len(listing.files), channels, side, side):
        raise UserError(f"{folder} is damaged: remove it, and the images are read again")
    labels = None if listing.labels is None else np.array(listing.labels, np.int64)
    held_out = None if listing.held_out is None else np.array(listing.held_out)
    return Tiles(name, pixels, labels, listing.classes, digest, held_out)


def _channels(listing: Listing) -> int:
    step = max(len(listing.files) // _LOOKED_AT, 1)
    return 3 if any(is_coloured(read_image(file)) for file in listing.files[::step]) else 1


def _decode(
    listing: Listing,
    path: Path,
    side: int,
    channels: int,
    threads: int,
    on_progress: OnProgress | None,
) -> None:
    count = len(listing.files)
    with replacing(path) as partial, ThreadPoolExecutor(threads) as pool:
        pixels = open_memmap(partial, "w+", np.uint8, (count, channels, side, side))
        read: Callable[[int], None] = lambda i: pixels.__setitem__(  # noqa: E731
            i, tile_of(read_image(listing.files[i]), side, channels, str(listing.files[i]))
        )
        for done, _ in enumerate(pool.map(read, range(count)), start=1):
            if on_progress is not None:
                on_progress(READING, done, count)
        pixels.flush()
