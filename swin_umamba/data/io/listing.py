"""List the images of a folder: the only place that decides which files count."""

from __future__ import annotations

from pathlib import Path

from swin_umamba.data.io import dicom_files
from swin_umamba.data.io.formats import ENDINGS
from swin_umamba.errors import UserError


def is_hidden(path: Path) -> bool:
    """Whether a file is hidden or left by another system, such as `._NAME` and .DS_Store."""
    return path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """Files with a readable ending, and folders with a DICOM series, by name.

    Hidden files are ignored. Raises UserError if there is no such folder.
    """
    images = (path for path in visible(folder) if stem_of(path) is not None)
    return [path for path in images if path.is_file() or path.is_dir()]


def visible(folder: Path) -> list[Path]:
    """Everything in a folder that is not hidden, by name. Raises UserError if it is missing."""
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}")
    return [path for path in sorted(folder.iterdir()) if not is_hidden(path)]


def files_by_stem(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """The images of a folder by name without ending, sorted; hidden files are ignored.

    ending: the only ending to accept, in any case of letters. Raises UserError if there is no such
    folder, or if two files have the same name apart from the ending.
    """
    found: dict[str, Path] = {}
    for path in visible(folder):
        stem = stem_of(path, ending)
        if stem is None or not (path.is_file() or path.is_dir()):
            continue
        if stem in found:
            raise UserError(f"{path} and {found[stem].name} have the same name")
        found[stem] = path
    return dict(sorted(found.items()))


def stem_of(path: Path, ending: str | None = None) -> str | None:
    """A file's name without its ending; None unless it is this ending, or a readable one.

    Folders with DICOM files keep their name, others have none.
    """
    if path.is_dir():
        fits = ending in (None, dicom_files.ENDING) and dicom_files.is_series(path)
        return path.name if fits else None
    for known in ENDINGS if ending is None else (ending.lower(),):
        if path.name.lower().endswith(known):
            return path.name[: -len(known)]
    return None
