"""`swin-umamba receptive-field`: how far trained networks see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.commands import DEVICES
from swin_umamba.cli.console import err, errors_in_one_line, out, progress, require_png


def receptive_field(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of training runs.")],
    output: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path(
        "receptive_field.png"
    ),
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it was moved since training.")
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="Size of the central crops.",
            show_default="the patch size",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of validation images.")] = 16,
    device: Annotated[str, typer.Option(help=DEVICES + ".")] = "auto",
) -> None:
    """Draw effective receptive fields: how much each pixel contributes to the center's prediction.

    Also prints the side of the central window that holds 50, 90 and 99 % of the contributions, as a
    fraction of the image side.
    """
    with errors_in_one_line():
        from rich.table import Table

        with err.status("Loading"):
            from swin_umamba.drawing.fields import save_fields
            from swin_umamba.evaluate.receptive_field import SHARES, field_of_run, side_of

        require_png("--out", output)
        with progress() as bar:
            task = bar.add_task("Reading", total=None)
            fields = {}
            for run in runs:
                bar.reset(task, description=run.name, total=None)
                fields[str(run)] = field_of_run(
                    run,
                    dataset=dataset,
                    size=size,
                    images=images,
                    device=device,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
        short = {Path(name).name: field for name, field in fields.items()}
        save_fields(output, short if len(short) == len(fields) else fields)
        table = Table("run", *(f"{share:.0%}" for share in SHARES))
        for name, field in fields.items():
            table.add_row(name, *(f"{side_of(field, share):.2f}" for share in SHARES))
        out.print(table)
    out.print(f"Picture: {output}", soft_wrap=True)
