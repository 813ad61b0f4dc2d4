"""Record the origin of the files in a prediction folder: one line of JSON per file.

Lines are appended, and the last line of a file counts: concurrent jobs in one folder do not undo
each other's, and a line truncated by a kill is ignored.
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
MODELS = "models"  # for an ensemble: the origin facts of each model
_SHOWN = 3

Images = list[dict[str, Any]]
"""Name, size in bytes, modification time in ns, and SHA-256 of each of a case's files."""


def facts_of(images: Iterable[Path]) -> Images:
    """The stamps of a case's images. Raises UserError for unreadable files."""
    return [{**_stat(path), "sha256": _checksum(path)} for path in _files(images)]


class Manifest:
    """The record of a folder, and the origin of the current job's files.

    made_by: JSON values by name: checksums of weights and plan, and options.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        self.folder = folder
        self.made_by = json.loads(json.dumps(made_by))  # tuples become lists, as in JSON
        self._entries = _read(folder / RECORD)

    def outdated(
        self, files: Mapping[Path, Sequence[Path]], *, replace_others: bool = False
    ) -> set[Path]:
        """The files, each with its images, whose images have changed since.

        Raises UserError for files made by another model or with other options, or of unknown
        origin; with `replace_others` these count as outdated too.
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
        """Append that this job makes the files from these images. Raises UserError on failure."""
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
                    if record.read(1) != b"\n":  # the last line was cut off by a kill
                        lines = b"\n" + lines
                if record.write(lines) != len(lines):
                    raise UserError(f"cannot write {path}: the disk is full")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _differing(self, before: Mapping[str, Any]) -> set[str]:
        numbers = [len(facts.get(MODELS, [facts])) for facts in (before, self.made_by)]
        if numbers[0] != numbers[1]:  # nothing else about them compares
            return {"models {}, now {}".format(*numbers)}
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


def origins(folder: Path) -> dict[str, dict[str, Any]]:
    """What made each recorded file of a prediction folder, by its name: `Manifest.made_by`."""
    return {name: entry["made_by"] for name, entry in _read(folder / RECORD).items()}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each file; lines of other programs are ignored."""
    try:
        lines = path.read_bytes().split(b"\n")
    # missing folders and files are reported on writing
    except (FileNotFoundError, NotADirectoryError):
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
    """Whether the images are the same; content is read only if only the times differ."""
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
    """All files that the images are read from: slices of a series, spacing files, pixel files of
    headers."""
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
    """Name and value of each fact; those of several models are numbered."""
    for name, value in facts.items():
        if name == MODELS:
            for number, model in enumerate(value, 1):
                yield from ((f"model {number}: {key}", each) for key, each in model.items())
        else:
            yield name, value


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 else text
