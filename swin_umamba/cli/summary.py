"""`swin-umamba summary`: parameters and FLOPs of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from swin_umamba.cli.console import errors_in_one_line, out
from swin_umamba.errors import UserError

MAX_SIDE, MAX_COUNT = 65536, 4096
"""With which no size of any tensor comes near what 64 bits hold."""


def summary(
    model: Annotated[
        str,
        typer.Argument(
            help="swin_umamba, swin_umamba_d (†), swin_umamba_v1, or a baseline: dynunet, ..."
        ),
    ] = "swin_umamba",
    size: Annotated[
        tuple[int, int],
        typer.Option(help="Height and width of the image.", min=1, max=MAX_SIDE),
    ] = (320, 320),
    in_channels: Annotated[
        int, typer.Option(help="Channels of the image.", min=1, max=MAX_COUNT)
    ] = 1,
    out_channels: Annotated[
        int, typer.Option(help="Classes, the background included.", min=1, max=MAX_COUNT)
    ] = 14,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1, max=MAX_COUNT)] = 1,
) -> None:
    """Show a model's parameters and FLOPs by stage."""
    from swin_umamba.models import baseline_names, model_names
    from swin_umamba.models.summary import summarize

    with errors_in_one_line():
        names = (*model_names(), *baseline_names())
        if model not in names:
            raise UserError(f"no model {model!r}; there are {', '.join(names)}")
        found = summarize(
            model, in_channels=in_channels, out_channels=out_channels, size=size, batch=batch
        )
    found.render(out)
