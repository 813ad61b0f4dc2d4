"""List images and their classes: from a folder per class, a CSV file, or a plain folder."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swin_umamba.common.files import reason_of
from swin_umamba.data.io.formats import ENDINGS
from swin_umamba.data.io.listing import visible
from swin_umamba.data.prepare.digests import stamp_of
from swin_umamba.errors import UserError

TRAIN, HELD_OUT = "train", ("val", "validation", "test")
_MAX_CSV = 256 << 20  # bytes
_COLUMNS = ("image", "label")


@dataclass(frozen=True)
class Listing:
    """Images as files. labels: class of each, as an index into `classes`; or None."""

    source: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    held_out: tuple[bool, ...] | None = None

    def digest(self) -> str:
        """A digest of the files' names, sizes and times, and of the labels."""
        known = hashlib.blake2b(digest_size=16)
        try:
            for number, path in enumerate(self.files):
                label = None if self.labels is None else self.labels[number]
                known.update(f"{path.absolute()}\n{stamp_of(path)}\n{label}\n".encode())
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {reason_of(error)}") from error
        return known.hexdigest()


def list_classes(path: Path) -> Listing:
    """Images with classes: from a CSV file, or from a folder with one folder per class.

    There may be train/ and val/ (or validation/, test/) above the class folders: images of the
    latter are held out. CSV: a header with the columns image, a path relative to the file, and
    label, the class name. Raises UserError for anything else.
    """
    if path.is_file():
        files, names = _rows(path, labelled=True)
        return _named(path, files, names, None)
    folders = {p.name: p for p in visible(path) if p.is_dir()}
    apart = next((name for name in HELD_OUT if name in folders), None)
    if apart is not None and TRAIN in folders:
        trained, held = _of_classes(folders[TRAIN]), _of_classes(folders[apart])
        unknown = sorted({name for _, name in held} - {name for _, name in trained})
        if unknown:
            raise UserError(f"{folders[apart]} has the class {unknown[0]}, which {TRAIN} lacks")
        found = [*trained, *held]
        flags = tuple(i >= len(trained) for i in range(len(found)))
    else:
        found, flags = _of_classes(path), None
    return _named(path, [file for file, _ in found], [name for _, name in found], flags)


def list_images(path: Path) -> Listing:
    """Images without classes: of a folder and its subfolders, or of a CSV file's column `image`."""
    files = _rows(path, labelled=False)[0] if path.is_file() else sorted(_below(path))
    if not files:
        raise UserError(f"{path} holds no images")
    return Listing(path, tuple(files), None, ())


def _named(
    path: Path, files: list[Path], names: list[str], held_out: tuple[bool, ...] | None
) -> Listing:
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise UserError(
            f"{path}: expected images of two classes or more, each in a folder of its own, or a CSV"
            f" file with the columns {' and '.join(_COLUMNS)}; found {len(classes)} classes."
            " --labels none learns from images without classes"
        )
    place = {name: i for i, name in enumerate(classes)}
    return Listing(path, tuple(files), tuple(place[name] for name in names), classes, held_out)


def _of_classes(folder: Path) -> list[tuple[Path, str]]:
    return [
        (file, inner.name)
        for inner in visible(folder)
        if inner.is_dir()
        for file in sorted(_below(inner))
    ]


def _below(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.name.lower().endswith(ENDINGS):
            yield path


def _rows(path: Path, *, labelled: bool) -> tuple[list[Path], list[str]]:
    needed = _COLUMNS if labelled else _COLUMNS[:1]
    try:
        if path.stat().st_size > _MAX_CSV:
            raise UserError(f"{path} is larger than {_MAX_CSV >> 20} MiB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} lacks the column {missing[0]} in its first line")
            rows = list(reader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    files = []
    for number, row in enumerate(rows, start=2):
        if any(not row[name] for name in needed):
            raise UserError(f"{path}, row {number}: expected values for {' and '.join(needed)}")
        image = path.parent / row["image"]
        if not image.is_file():
            raise UserError(f"{path}, row {number}: no image at {image}")
        files.append(image)
    return files, [row["label"] for row in rows] if labelled else []
