"""`swin-umamba summary`: parameters and FLOPs of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from swin_umamba.cli.commands import BASELINES, ENCODERS, MODELS
from swin_umamba.cli.console import err, errors_in_one_line, out
from swin_umamba.errors import UserError

MAX_SIDE, MAX_COUNT = 65536, 4096
"""Limit that keeps every tensor size far below 64-bit overflow."""


def summary(
    model: Annotated[
        str,
        typer.Argument(help=f"{MODELS}; for comparison {BASELINES}."),
    ] = "swin_umamba",
    size: Annotated[
        tuple[int, int],
        typer.Option(metavar="HEIGHT WIDTH", help="Image size.", min=1, max=MAX_SIDE),
    ] = (320, 320),
    encoder: Annotated[
        str | None,
        typer.Option(help=f"Encoder of our models: {ENCODERS}.", show_default="vmamba_tiny"),
    ] = None,
    in_channels: Annotated[int, typer.Option(help="Image channels.", min=1, max=MAX_COUNT)] = 1,
    out_channels: Annotated[
        int, typer.Option(help="Classes, including background.", min=1, max=MAX_COUNT)
    ] = 14,
    batch: Annotated[int, typer.Option(help="Images per batch.", min=1, max=MAX_COUNT)] = 1,
) -> None:
    """Show parameters and FLOPs of a model by stage."""
    with err.status("Loading"):
        from swin_umamba.models import baseline_names, model_names
        from swin_umamba.models.summary import summarize
        from swin_umamba.runs.config import check_encoder, network_options

    with errors_in_one_line():
        names = (*model_names(), *baseline_names())
        if model not in names:
            raise UserError(f"unknown model {model!r}, expected one of {', '.join(names)}")
        try:
            check_encoder(model, encoder, {})
            with err.status("Counting"):
                found = summarize(
                    model,
                    in_channels=in_channels,
                    out_channels=out_channels,
                    size=size,
                    batch=batch,
                    **network_options(encoder, {}),
                )
        except ValueError as error:
            raise UserError(str(error)) from error
    found.render(out)
