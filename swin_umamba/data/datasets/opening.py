"""Open a dataset of either layout."""

from __future__ import annotations

from pathlib import Path

from swin_umamba.data.datasets import bare, nnunet
from swin_umamba.data.datasets.dataset import Dataset
from swin_umamba.errors import UserError


def open_dataset(path: str | Path) -> Dataset:
    """Find the cases of a dataset in one of two layouts.

    nnU-Net v2 raw: dataset.json with imagesTr/ and labelsTr/ (and instancesTr/ for instance maps);
    files NAME_0000.png, NAME_0001.png, ... with one channel each, or one NAME_0000.png with all
    channels. Labels may be region-based.

    Plain: images/ and masks/ (and instances/) with files of the same stem, in any format; images
    may have nnU-Net's _0000 suffixes. The distinct values over all masks, ascending, become the
    classes 0, 1, 2, ...: masks of 0 and 255 have the classes background and foreground. At most 32
    classes; every mask is read for this.

    Raises UserError, naming the file, for anything missing, damaged or inconsistent.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}")
    if (folder / nnunet.DATASET).is_file():
        return nnunet.open_nnunet(folder)
    if (folder / bare.IMAGES).is_dir() and (folder / bare.MASKS).is_dir():
        return bare.open_bare(folder)
    raise UserError(
        f"{folder} is not a dataset: expected {nnunet.DATASET} with imagesTr/ and labelsTr/"
        f" (nnU-Net v2 raw), or the folders {bare.IMAGES}/ and {bare.MASKS}/"
    )
