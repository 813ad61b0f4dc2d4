"""`swin-umamba evaluate`: score predictions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from swin_umamba.cli.console import err, out, told
from swin_umamba.errors import UserError
from swin_umamba.files import write_text

if TYPE_CHECKING:
    from swin_umamba.evaluate import Difference, Scores
    from swin_umamba.metrics.surface import Convention


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    dataset: Annotated[Path, typer.Argument(help="The dataset with the true masks.")],
    against: Annotated[
        Path | None, typer.Option(help="A second folder of predictions, compared case by case.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of NSD, in the unit of the spacing.")] = 2.0,
    release_nsd: Annotated[
        bool, typer.Option("--release-nsd", help="NSD as the release measures it, which is higher.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="File for all scores, a row each.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for all scores.")] = None,
) -> None:
    """Score masks by DSC, NSD and, where the dataset has instance maps, F1 of objects.

    Scores are means over the cases that hold the class, in truth or prediction; the others are
    counted beside them.
    """
    with told():
        from swin_umamba.data import open_dataset
        from swin_umamba.evaluate import compare, evaluate_folder

        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise UserError(f"--tolerance: got {tolerance}, expected 0 or above")
        truth = open_dataset(dataset)
        convention: Convention = "release" if release_nsd else "contour"

        def scored(folder: Path) -> Scores:
            with err.status(f"Scoring {folder.name}"):
                return evaluate_folder(folder, truth, tolerance=tolerance, convention=convention)

        scores = scored(predictions)
        out.print(_table(scores))
        facts = scores.to_json()
        if against is not None:
            differences = compare(scores, scored(against))
            out.print(_differences(differences, predictions, against))
            facts["against"] = [{**vars(d), "clear": d.clear} for d in differences]
        if json_file is not None:
            write_text(json_file, json.dumps(facts, indent=2, allow_nan=False) + "\n")
        if csv is not None:
            write_text(csv, scores.to_csv())


def _table(scores: Scores) -> Table:
    table = Table(title=f"{len(scores.cases)} cases")
    for column in ("metric", "class", "mean", "cases", "empty in both"):
        table.add_column(column, justify="left" if column in ("metric", "class") else "right")
    for metric in scores.metrics():
        for name, mean, count in scores.means(metric):
            shown = "-" if math.isnan(mean) else f"{mean:.4f}"
            table.add_row(metric.upper(), name, shown, str(count), str(len(scores.cases) - count))
    return table


def _differences(differences: list[Difference], first: Path, second: Path) -> Table:
    table = Table(title=f"{first.name} minus {second.name}")
    for column in ("metric", "class", "difference", "95 % interval", "cases"):
        table.add_column(column, justify="left" if column in ("metric", "class") else "right")
    for d in differences:
        mark = " *" if d.clear else ""
        table.add_row(
            d.metric.upper(),
            d.name,
            f"{d.mean:+.4f}{mark}",
            f"{d.low:+.4f} to {d.high:+.4f}",
            str(d.cases),
        )
    return table
