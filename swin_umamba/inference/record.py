"""What made the files of a folder of predictions: a line of JSON for each, beside them.

Lines are appended, and the last one of a file counts: jobs side by side in one folder don't undo
each other's, and one that a kill cut off is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_umamba.common.files import sha256
from swin_umamba.common.jsons import parse_json
from swin_umamba.data.io.formats import files_of
from swin_umamba.errors import UserError

RECORD = "predictions.jsonl"
MODELS = "models"  # of an ensemble: what each makes its files by
_SHOWN = 3

Images = list[dict[str, Any]]
"""Name, size in bytes, time of the last change in ns, and SHA-256 of each of a case's files."""


def facts_of(images: Iterable[Path]) -> Images:
    """What tells a case's images from others. Raises UserError for files that cannot be read."""
    return [{**_stat(path), "sha256": _checksum(path)} for path in _files(images)]


class Manifest:
    """The record of a folder, and what this job makes its files by.

    made_by: JSON values by name: of the weights' and the plan's checksums, and of options.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        self.folder = folder
        self.made_by = json.loads(json.dumps(made_by))  # tuples as JSON has them
        self._entries = _read(folder / RECORD)

    def outdated(
        self, files: Mapping[Path, Sequence[Path]], *, replace_others: bool = False
    ) -> set[Path]:
        """Those of the files, each with its images, whose images have changed since.

        Raises UserError for files that another model or other options made, or of which nothing is
        known; with `replace_others` these are outdated, too.
        """
        unknown: list[Path] = []
        otherwise: list[Path] = []
        changed = set()
        differing: set[str] = set()
        for file, images in files.items():
            entry = self._entries.get(self._name(file))
            if entry is None:
                unknown.append(file)
            elif entry["made_by"] != self.made_by:
                otherwise.append(file)
                differing |= self._differing(entry["made_by"])
            elif not _same(entry["images"], images):
                changed.add(file)
        if replace_others:
            return changed.union(unknown, otherwise)
        ways = "--overwrite replaces them; another output folder keeps them"
        if otherwise:
            raise UserError(
                f"{self._listed(otherwise)} made by another model or with other options:"
                f" {'; '.join(sorted(differing))}. {ways}"
            )
        if unknown:
            raise UserError(
                f"{self._listed(unknown)} made by an unknown model: {RECORD} there does not list"
                f" {'it' if len(unknown) == 1 else 'them'}. {ways}"
            )
        return changed

    def note(self, files: Iterable[Path], images: Images) -> None:
        """Append that this job makes the files, of these images. Raises UserError if it cannot."""
        lines = b""
        for file in files:
            entry = {"file": self._name(file), "made_by": self.made_by, "images": images}
            lines += json.dumps(entry).encode() + b"\n"
            self._entries[entry["file"]] = entry
        path = self.folder / RECORD
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        try:
            with path.open("a+b", buffering=0) as record:
                if record.seek(0, os.SEEK_END):
                    record.seek(-1, os.SEEK_END)
                    if record.read(1) != b"\n":  # a kill cut the last line off
                        lines = b"\n" + lines
                if record.write(lines) != len(lines):
                    raise UserError(f"cannot write {path}: the disk is full")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _differing(self, before: Mapping[str, Any]) -> set[str]:
        old, new = dict(_single(before)), dict(_single(self.made_by))
        return {
            f"{name} {_short(old.get(name))}, now {_short(new.get(name))}"
            for name in old.keys() | new.keys()
            if old.get(name) != new.get(name)
        }

    def _listed(self, files: Sequence[Path]) -> str:
        names = ", ".join(map(self._name, files[:_SHOWN]))
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        return f"{names}{more} in {self.folder} {'was' if len(files) == 1 else 'were'}"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each file; nothing of lines that are none of ours."""
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):  # the latter is told on writing
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    entries = {}
    for line in lines:
        try:
            entry = parse_json(line)
            kinds = {"file": str, "made_by": dict, "images": list}
            if all(isinstance(entry[name], kind) for name, kind in kinds.items()):
                entries[entry["file"]] = entry
        except (ValueError, TypeError, KeyError):
            continue
    return entries


def _same(before: Sequence[Any], images: Sequence[Path]) -> bool:
    """Whether these are the images; their content is read where only their times differ."""
    files = _files(images)
    if len(before) != len(files):
        return False
    for old, path in zip(before, files, strict=True):
        new = _stat(path)
        known = {name: old.get(name) for name in new} if isinstance(old, dict) else {}
        if known == new:
            continue
        if known.get("size") != new["size"] or old.get("sha256") != _checksum(path):
            return False
    return True


def _files(images: Iterable[Path]) -> list[Path]:
    """All files that the images are read from: slices of a series, spacings, pixels of headers."""
    return [file for image in images for file in files_of(image)]


def _stat(path: Path) -> dict[str, Any]:
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return {"name": path.name, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _checksum(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _single(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each fact, those of several models by their number."""
    for name, value in facts.items():
        if name == MODELS:
            for number, model in enumerate(value, 1):
                yield from ((f"model {number}: {key}", each) for key, each in model.items())
        else:
            yield name, value


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 else text
