"""`swin-umamba cache`: list and remove cached data."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from swin_umamba.cli.console import errors_in_one_line, out
from swin_umamba.errors import UserError

_LATEST = 4e9  # seconds since 1970: file systems can store times for which there is no date


def cache(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Remove a preprocessed dataset; may be repeated.",
        ),
    ] = None,
    clear_unused: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", help="Remove cases that no training has read for this many days.", min=0
        ),
    ] = None,
    clear_all: Annotated[bool, typer.Option("--clear-all", help="Remove everything.")] = False,
) -> None:
    """List or clear preprocessed datasets and downloads.

    The cache is in SWIN_UMAMBA_CACHE or the platform's cache folder. Anything removed is created or
    downloaded again when needed. Preprocessed cases that no training has read for 30 days are also
    removed whenever their dataset is prepared.
    """
    with errors_in_one_line():
        from swin_umamba.common.files import cache_dir
        from swin_umamba.data.prepare.cache import PREPROCESSED
        from swin_umamba.data.prepare.kept import (
            clear_all_unused,
            clear_dataset,
            kept_datasets,
            kept_otherwise,
            remove,
        )

        for name in clear or ():
            freed = clear_dataset(name)
            out.print(f"Removed {freed.path}: {_megabytes(freed.bytes)}", soft_wrap=True)
        if clear_unused is not None:
            if not math.isfinite(clear_unused):
                raise UserError(f"--clear-unused: got {clear_unused}, expected days, 0 or above")
            for kept in clear_all_unused(clear_unused):
                out.print(f"Removed from {kept.path}: {_megabytes(kept.bytes)}", soft_wrap=True)
        if clear_all:
            for kept in [*kept_datasets(), *kept_otherwise()]:
                if kept.path.parent.name == PREPROCESSED and kept.path.is_dir():
                    clear_dataset(kept.path.name)  # unless the dataset is being prepared right now
                else:
                    remove(kept.path)
                out.print(f"Removed {kept.path}: {_megabytes(kept.bytes)}", soft_wrap=True)
        if clear or clear_all or clear_unused is not None:
            return
        datasets, others = kept_datasets(), kept_otherwise()
        table = Table("kept", "files", "size", "last used", box=None, pad_edge=False)
        for kept in [*datasets, *others]:
            what = "dataset" if kept in datasets else "other"
            day = datetime.fromtimestamp(min(max(kept.used, 0), _LATEST)).strftime("%Y-%m-%d")
            name = f"{what} {kept.path.name}"
            table.add_row(name, str(kept.files), _megabytes(kept.bytes), day)
        out.print(f"Cache: {cache_dir()}", soft_wrap=True)
        if datasets or others:
            out.print(table, soft_wrap=True)
        else:
            out.print("The cache is empty.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
