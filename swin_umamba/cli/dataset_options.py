"""Arguments shared by `prepare` and `train`; options go in a panel of each command."""

from __future__ import annotations

from typing import Any

import typer

DATASET: Any = typer.Argument(help="nnU-Net v2 raw dataset, or a folder with images/ and masks/.")


def splits_option(panel: str) -> Any:
    return typer.Option(
        help="Splits file, in the format of nnU-Net's splits_final.json.", rich_help_panel=panel
    )


def patch_size_option(panel: str) -> Any:
    return typer.Option(
        metavar="HEIGHT WIDTH",
        help="Size of training patches.",
        show_default="from the images",
        rich_help_panel=panel,
    )


def axis_option(panel: str) -> Any:
    return typer.Option(
        help="Volumes: slice along z (0), y (1) or x (2).",
        show_default="from the images",
        rich_help_panel=panel,
    )
