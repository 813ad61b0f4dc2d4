"""The folder of a cross-validation: one run folder per fold."""

from __future__ import annotations

import re
from pathlib import Path

from swin_umamba.errors import UserError
from swin_umamba.runs.folder import CONFIG, holds_run

CROSS_VALIDATION = "cross_validation.json"
REPORT = "report.html"
_OWN = {CROSS_VALIDATION, REPORT}
_FOLD = re.compile(r"fold_(\d+)")


def fold_folder(parent: Path, fold: int) -> Path:
    """The folder of a fold's run."""
    return parent / f"fold_{fold}"


def folds_of(folder: Path) -> tuple[Path, ...]:
    """The fold runs in a folder, by number; empty if there are none."""
    if not folder.is_dir():
        return ()
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _FOLD.fullmatch(path.name)) and holds_run(path)
    }
    return tuple(found[number] for number in sorted(found))


def require_parent(folder: Path) -> None:
    """Raise UserError unless fold runs can be created below a folder, which may be missing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected a folder for the folds' runs")
    if (folder / CONFIG).exists():
        raise UserError(f"{folder} holds a run itself; name another folder for the folds' runs")
    foreign = [
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if not (path.name.startswith(".") or path.name in _OWN or _is_fold(path))
    ]
    if foreign:
        raise UserError(
            f"{folder} already holds files ({min(foreign)}); name another folder for the folds"
        )


def _is_fold(path: Path) -> bool:
    return _FOLD.fullmatch(path.name) is not None
