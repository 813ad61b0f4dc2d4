"""`swin-umamba convert`: convert other checkpoints to this package's files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.commands import MODELS
from swin_umamba.cli.console import err, errors_in_one_line, out
from swin_umamba.errors import UserError


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of VMamba, of the original implementation, or of this package."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help=".safetensors file to write, or .pth in the original implementation's layout."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help=f"{MODELS}.", show_default="auto-detected")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="Image channels.", min=1, show_default="as in the source")
    ] = None,
    first_layer: Annotated[
        str,
        typer.Option(help="Adapt the first layer to other channels: mean, sum, repeat or drop."),
    ] = "mean",
    release_patch_norm: Annotated[
        bool,
        typer.Option(
            "--release-patch-norm/--no-release-patch-norm",
            help="Omit the weight of the patch embedding's norm, as the original loader does.",
            show_default=False,
        ),
    ] = False,
    ema: Annotated[
        bool,
        typer.Option("--ema/--no-ema", help="Use VMamba's averaged weights.", show_default=False),
    ] = False,
    encoder_only: Annotated[
        bool,
        typer.Option("--encoder-only", help="Extract the encoder of a whole model."),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what happened to every tensor to a JSON file.")
    ] = None,
) -> None:
    """Convert a checkpoint and report what happened to every tensor.

    Conversion is optional: train --pretrained reads these checkpoints directly.
    """
    from swin_umamba.common.files import write_text
    from swin_umamba.weights import convert as run

    with errors_in_one_line():
        try:
            with err.status("Converting"):
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
    out.print(f"Written: {target}", soft_wrap=True)
    if target.suffix == ".safetensors":
        weights = shlex.quote(str(target))
        out.print(f"Next: swin-umamba train DATASET RUN --pretrained {weights}", soft_wrap=True)
