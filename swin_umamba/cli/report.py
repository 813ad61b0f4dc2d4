"""`swin-umamba report`: how a run went, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.console import errors_in_one_line, out, progress


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a training run, or of a run for each fold.")
    ],
    output: Annotated[
        Path | None, typer.Option("--out", help="The page; report.html in the run's folder.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Where the run's dataset lies now, if it moved.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Masks of the validation cases; the best weights predict them if left."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Write one HTML page: curves, scores, best and worst cases, configuration and environment.

    The page holds all its pictures and needs no other file and no network.
    """
    with errors_in_one_line():
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
