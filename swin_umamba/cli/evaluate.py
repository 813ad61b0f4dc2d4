"""`swin-umamba evaluate`: score predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from swin_umamba.cli.console import counted, err, errors_in_one_line, out, progress
from swin_umamba.common.files import write_text
from swin_umamba.errors import UserError

if TYPE_CHECKING:
    from swin_umamba.data import Dataset
    from swin_umamba.evaluate import Difference, Scores


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    truth: Annotated[Path, typer.Argument(help="The dataset, or a folder of true masks.")],
    dataset: Annotated[
        Path | None,
        typer.Option(help="With a folder of masks: the dataset that defines the classes."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Score only cases that this run was not trained on.")
    ] = None,
    find_postprocessing: Annotated[
        bool,
        typer.Option(
            "--find-postprocessing",
            help="Record in RUN which classes score better when reduced to their largest component;"
            " predict then applies it. Needs masks that RUN predicted with --no-postprocessing.",
        ),
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Second folder of predictions, to compare case by case.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Tolerance of NSD, in the unit of the spacing.")
    ] = 2.0,
    release_nsd: Annotated[
        bool,
        typer.Option(
            "--release-nsd",
            help="Also NSD as the original implementation measures it, which is higher.",
        ),
    ] = False,
    instances: Annotated[
        Path | None, typer.Option(help="Folder of instance maps, if the dataset has none.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Skip cases without a prediction.")
    ] = False,
    allow_extra: Annotated[
        bool, typer.Option("--allow-extra", help="Skip predictions that belong to no case.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap intervals.", min=0)] = 0,
    csv: Annotated[Path | None, typer.Option(help="Write all scores to a CSV file.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all scores to a JSON file.")
    ] = None,
) -> None:
    """Score predicted masks: DSC, NSD and, with instance maps, F1 of objects.

    A class's score is the mean over the cases that contain it, in truth or prediction; other cases
    are counted separately. With several classes, the last row is the mean over classes.
    """
    with errors_in_one_line():
        with err.status("Loading"):
            from swin_umamba.data import open_dataset
            from swin_umamba.evaluate import compare, evaluate_folder, open_truth, with_instances
            from swin_umamba.evaluate.held_out import held_out

        if find_postprocessing:
            _require_new(run)
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise UserError(f"--tolerance: got {tolerance}, expected 0 or above")
        true = open_truth(truth, None if dataset is None else open_dataset(dataset))
        if instances is not None:
            true = with_instances(true, instances)
        names = None if run is None else held_out(run)
        if find_postprocessing and run is not None and names is not None:
            _require_own(run, predictions, names)

        def scored(folder: Path) -> Scores:
            with progress() as bar:
                task = bar.add_task(f"Scoring {folder.name}", total=None)
                return evaluate_folder(
                    folder,
                    true,
                    names=names,
                    tolerance=tolerance,
                    release_nsd=release_nsd,
                    instances=True if instances is not None else None,
                    allow_missing=allow_missing,
                    allow_extra=allow_extra,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

        scores = scored(predictions)
        differences = None if against is None else compare(scores, scored(against), seed=seed)
        out.print(_table(scores))
        objects = scores.objects()
        if objects is not None:
            counts = f"{objects.tp} found, {objects.fn} missed, {objects.fp} false positives"
            out.print(f"Objects of all cases together: {counts}; pooled F1 {objects.f1:.4f}")
        facts = scores.to_json()
        if differences is not None and against is not None:
            out.print(_differences(differences, predictions, against))
            facts["against"] = [{**vars(d), "clear": d.clear} for d in differences]
        if json_file is not None:
            write_text(json_file, json.dumps(facts, indent=2, allow_nan=False) + "\n")
        if csv is not None:
            write_text(csv, scores.to_csv())
        if find_postprocessing and run is not None:
            _find_postprocessing(run, predictions, true, [case.case for case in scores.cases])
        if csv is None and json_file is None:
            out.print("Scores of each case: --csv FILE or --json FILE")


def _require_new(run: Path | None) -> None:
    from swin_umamba.runs.folder import POSTPROCESSING

    if run is None:
        raise UserError("--find-postprocessing needs --run, the run in which to record the result")
    if (run / POSTPROCESSING).exists():
        raise UserError(
            f"{run / POSTPROCESSING} already exists and may have been applied to these masks."
            " Remove it and predict again to recompute it"
        )


def _require_own(run: Path, predictions: Path, names: Sequence[str]) -> None:
    from swin_umamba.data.datasets.grouping import files_by_stem
    from swin_umamba.evaluate.postprocessing import require_masks_of

    files = files_by_stem(predictions)
    require_masks_of(run, predictions, [files[name] for name in names if name in files])


def _find_postprocessing(run: Path, predictions: Path, truth: Dataset, names: list[str]) -> None:
    from swin_umamba.data.datasets.grouping import files_by_stem
    from swin_umamba.evaluate.postprocessing import find_postprocessing, save_postprocessing

    files = files_by_stem(predictions)
    with progress() as bar:
        task = bar.add_task("Postprocessing", total=None)
        found = find_postprocessing(
            {name: files[name] for name in names},
            truth,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    save_postprocessing(found, run)
    classes = dict(zip(truth.values, truth.labels, strict=True))
    kept = ", ".join(classes[value] for value in found.keep_largest)
    out.print(f"Keep the largest component only: {kept or 'no class scores better with it'}")


def _table(scores: Scores) -> Table:
    from swin_umamba.evaluate import METRICS

    table = Table(title=counted(len(scores.cases), "case"))
    for column in ("metric", "class", "mean", "cases", "empty in both"):
        table.add_column(column, justify="left" if column in ("metric", "class") else "right")
    for metric in scores.metrics():
        for name, mean, count in scores.means(metric):
            shown = "-" if math.isnan(mean) else f"{mean:.4f}"
            empty = str(len(scores.cases) - count)
            table.add_row(METRICS[metric], name, shown, str(count), empty)
        if len(scores.names(metric)) > 1:
            table.add_row(METRICS[metric], "mean of the classes", f"{scores.mean(metric):.4f}")
    return table


def _differences(differences: list[Difference], first: Path, second: Path) -> Table:
    from swin_umamba.evaluate import METRICS

    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    table = Table(title=" minus ".join(names))
    for column in ("metric", "class", "difference", "95 % interval", "cases"):
        table.add_column(column, justify="left" if column in ("metric", "class") else "right")
    for d in differences:
        mark = " *" if d.clear else ""
        table.add_row(
            METRICS[d.metric],
            d.name,
            f"{d.mean:+.4f}{mark}",
            f"{d.low:+.4f} to {d.high:+.4f}",
            str(d.cases),
        )
    table.caption = "* the interval excludes 0"
    return table
