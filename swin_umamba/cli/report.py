"""`swin-umamba report`: one page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.commands import DEVICES
from swin_umamba.cli.console import err, errors_in_one_line, out, progress


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, or folder of a cross-validation.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file to write.", show_default="report.html in the run folder"
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it was moved since training.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Existing masks of the validation cases.",
            show_default="predicted with the best weights",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICES + ".")] = "auto",
) -> None:
    """Write one HTML page: curves, scores, best and worst cases, settings and environment.

    The page contains all pictures; it needs no other file and no network.
    """
    with errors_in_one_line():
        with err.status("Loading"):
            from swin_umamba.report import write_report

        with progress() as bar:
            task = bar.add_task("Reading", total=None)

            def show(what: str, done: int, total: int) -> None:
                bar.update(task, description=what, completed=done, total=total)

            page = write_report(
                run,
                output,
                dataset=dataset,
                predictions=predictions,
                device=device,
                on_progress=show,
            )
    out.print(f"Report: {page}", soft_wrap=True)
