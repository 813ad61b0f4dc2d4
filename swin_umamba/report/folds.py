"""The page of a cross-validation: its table, and links to the folds' pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from swin_umamba.common.files import resolved
from swin_umamba.common.jsons import load_object
from swin_umamba.errors import UserError
from swin_umamba.evaluate.scores import METRICS
from swin_umamba.report.page import document, number, table
from swin_umamba.runs.folds import CROSS_VALIDATION

_Row = TypedDict(
    "_Row",
    {
        "metric": str,
        "class": str,
        "folds": list[float | None],
        "mean_over_cases": float | None,
        "mean_over_folds": float | None,
        "sd_over_folds": float | None,
    },
)


class _Table(TypedDict):
    folds: list[str]
    rows: list[_Row]


def folds_page(folder: Path, pages: Mapping[str, str]) -> str:
    """pages: the path of each fold's page, relative to `folder`, by fold name."""
    title = resolved(folder).name
    links = "".join(
        f'<li><a href="{escape(quote(where))}">{escape(name)}</a></li>'
        for name, where in pages.items()
    )
    body = (
        f"<h1>{escape(title)}</h1><p class=faint>Cross-validation over {len(pages)} folds</p>\n"
        f"{_scores(folder / CROSS_VALIDATION)}"
        f"<h2>Folds</h2><div class=card><ul>{links}</ul></div>\n"
    )
    return document(f"{title}: Swin-UMamba cross-validation report", body)


def _scores(path: Path) -> str:
    if not path.is_file():
        return (
            "<h2>Scores</h2><p class=card>There is no table of scores yet: it is made when all"
            " folds are trained.</p>"
        )
    found = _read(path)
    heads = ["metric", "class", *found["folds"], "mean over cases", "mean over folds"]
    rows = [
        [
            escape(METRICS.get(row["metric"], row["metric"])),
            escape(row["class"]),
            *(_shown(value) for value in row["folds"]),
            _shown(row["mean_over_cases"]),
            f"{_shown(row['mean_over_folds'])} ± {_shown(row['sd_over_folds'])}",
        ]
        for row in found["rows"]
    ]
    return (
        "<h2>Scores</h2><p class=faint>Every case by the model that was not trained on it. ± is"
        f" the standard deviation over the folds.</p><div class=card>{table(heads, rows)}</div>\n"
    )


def _read(path: Path) -> _Table:
    content = load_object(path, "a cross-validation")
    try:
        found = TypeAdapter(_Table).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not a cross-validation: {where}: {first['msg']}") from error
    for row in found["rows"]:
        _require_folds(path, found["folds"], row["folds"])
    return found


def _require_folds(path: Path, names: Sequence[str], values: Sequence[float | None]) -> None:
    if len(values) != len(names):
        raise UserError(
            f"{path} is not a cross-validation: a row has {len(values)} folds,"
            f" expected {len(names)}"
        )


def _shown(value: float | None) -> str:
    return number(math.nan if value is None else value)
