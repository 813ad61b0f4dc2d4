"""`swin-umamba convert`: other checkpoints into our files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.console import errors_in_one_line, out
from swin_umamba.errors import UserError


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A checkpoint of VMamba, of Swin-UMamba's release, or of ours."),
    ],
    target: Annotated[
        Path,
        typer.Argument(help="A .safetensors file to write, or .pth for the release's layout."),
    ],
    model: Annotated[
        str | None, typer.Option(help="What it must be; found out by default.")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="Channels of the image; the source's by default.", min=1)
    ] = None,
    first_layer: Annotated[
        str, typer.Option(help="How other channels are met: mean, sum, repeat or drop.")
    ] = "mean",
    release_patch_norm: Annotated[
        bool, typer.Option(help="Leave out the weight of the patch embedding's norm, as there.")
    ] = False,
    ema: Annotated[bool, typer.Option(help="Take VMamba's averaged weights.")] = False,
    encoder_only: Annotated[
        bool,
        typer.Option("--encoder-only", help="Of a whole model, too; any of ours takes it."),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the account of every tensor as JSON.")
    ] = None,
) -> None:
    """Convert a checkpoint, and account for every tensor in it."""
    from swin_umamba.common.files import write_text
    from swin_umamba.weights import convert as run

    with errors_in_one_line():
        try:
            found = run(
                source,
                target,
                model=model,
                in_channels=in_channels,
                first_layer=first_layer,  # type: ignore[arg-type]
                release_patch_norm=release_patch_norm,
                ema=ema,
                encoder_only=encoder_only,
            )
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        if report is not None:
            write_text(report, found.to_json())
    found.render(out)
    out.print(f"written: {target}")
