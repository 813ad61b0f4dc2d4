"""Group the files of a folder into images."""

from __future__ import annotations

import re
from pathlib import Path

from swin_umamba.common.files import resolved
from swin_umamba.data.datasets.dataset import CaseFiles
from swin_umamba.data.io.dicom_files import is_volume
from swin_umamba.data.io.listing import files_by_stem as files_by_stem
from swin_umamba.data.io.listing import stem_of as stem_of
from swin_umamba.errors import UserError

_CHANNEL = re.compile(r"_(\d{4})$")


def group_images(
    folder: Path, *, files: int = 1, ending: str | None = None, series: bool = True
) -> list[CaseFiles]:
    """The images of a folder, by name, without masks.

    files: number of files per image (`Plan.files_per_image`). With 1, each file is an image, and a
    trailing _0000 is not part of its name; with more, NAME_0000, NAME_0001, ... are the channels of
    NAME. ending: the only ending to accept, or None for every readable format; other files are
    ignored. series: whether a folder with the slices of one DICOM series is one image, named after
    the folder; otherwise each slice is one. Raises UserError, naming the file, if the folder is
    missing, a channel is missing or superfluous, or two files have the same name.
    """
    if series and folder.is_dir() and is_volume(folder):
        if files > 1:
            raise UserError(f"{folder} is one image, but each here has {files}: name their folder")
        return [CaseFiles(resolved(folder).name, (folder,))]
    found: dict[str, list[Path]] = {}
    for stem, path in files_by_stem(folder, ending).items():
        match = _CHANNEL.search(stem)
        if files == 1:
            name, channel = stem.removesuffix("_0000"), 0
        elif match is None:
            raise UserError(f"{path} has no channel in its name, expected {stem}_0000, _0001, ...")
        else:
            name, channel = stem[: match.start()], int(match[1])
        paths = found.setdefault(name, [])
        if channel != len(paths):
            if files == 1:
                raise UserError(f"{path} and {paths[0].name} have the same name")
            raise UserError(f"{path} is there, but not channel _{len(paths):04d} of {name}")
        paths.append(path)
        if len(paths) > files:
            raise UserError(f"{path} is channel {len(paths)} of {name}, expected {files}")
    for name, paths in found.items():
        if len(paths) < files:
            raise UserError(f"{paths[-1]}: {name} has no channel _{len(paths):04d} beside it")
    return [CaseFiles(name, tuple(paths)) for name, paths in sorted(found.items())]
