"""The images of a folder: the one place that says which files are seen."""

from __future__ import annotations

from pathlib import Path

from swin_umamba.data.io import dicom_files
from swin_umamba.data.io.formats import ENDINGS
from swin_umamba.errors import UserError


def is_hidden(path: Path) -> bool:
    """Whether other systems left the file: macOS's `._NAME` and .DS_Store, and all with a dot."""
    return path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """Files with an ending of a format that is read, and folders of a DICOM series, by name.

    Hidden files are not seen. Raises UserError if there is no folder.
    """
    images = (path for path in visible(folder) if stem_of(path) is not None)
    return [path for path in images if path.is_file() or path.is_dir()]


def visible(folder: Path) -> list[Path]:
    """Everything in a folder that is not hidden, by name. Raises UserError if there is none."""
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}")
    return [path for path in sorted(folder.iterdir()) if not is_hidden(path)]


def files_by_stem(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """The images of a folder by their names without endings, in order; hidden files are not seen.

    ending: the only one to take, in any case of its letters. Raises UserError if there is no
    folder, or two files have one name but for the ending.
    """
    found: dict[str, Path] = {}
    for path in visible(folder):
        stem = stem_of(path, ending)
        if stem is None or not (path.is_file() or path.is_dir()):
            continue
        if stem in found:
            raise UserError(f"{path} and {found[stem].name} are of one name")
        found[stem] = path
    return dict(sorted(found.items()))


def stem_of(path: Path, ending: str | None = None) -> str | None:
    """A file's name without its ending; None if it is not that one, or none that is read.

    Folders that hold DICOM files keep their name, others have none.
    """
    if path.is_dir():
        fits = ending in (None, dicom_files.ENDING) and dicom_files.is_series(path)
        return path.name if fits else None
    for known in ENDINGS if ending is None else (ending.lower(),):
        if path.name.lower().endswith(known):
            return path.name[: -len(known)]
    return None
