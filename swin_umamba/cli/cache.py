"""`swin-umamba cache`: what is kept between runs, and how to be rid of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from swin_umamba.cli.console import errors_in_one_line, out


def cache(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Remove a preprocessed dataset; may be repeated.",
        ),
    ] = None,
    clear_all: Annotated[bool, typer.Option("--clear-all", help="Remove everything.")] = False,
) -> None:
    """List or clear preprocessed datasets and downloads.

    The cache is in SWIN_UMAMBA_CACHE or the platform's cache folder. Whatever is removed is created
    or downloaded again when needed.
    """
    with errors_in_one_line():
        from swin_umamba.common.files import cache_dir
        from swin_umamba.data.prepare.kept import (
            clear_dataset,
            kept_datasets,
            kept_otherwise,
            remove,
        )

        for name in clear or ():
            freed = clear_dataset(name)
            out.print(f"Removed {freed.path}: {_megabytes(freed.bytes)}", soft_wrap=True)
        if clear_all:
            for kept in [*kept_datasets(), *kept_otherwise()]:
                remove(kept.path)
                out.print(f"Removed {kept.path}: {_megabytes(kept.bytes)}", soft_wrap=True)
        if clear or clear_all:
            return
        datasets, others = kept_datasets(), kept_otherwise()
        table = Table("kept", "files", "size", box=None, pad_edge=False)
        for kept in [*datasets, *others]:
            what = "dataset" if kept in datasets else "other"
            table.add_row(f"{what} {kept.path.name}", str(kept.files), _megabytes(kept.bytes))
        out.print(f"Cache: {cache_dir()}", soft_wrap=True)
        if datasets or others:
            out.print(table, soft_wrap=True)
        else:
            out.print("It is empty.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
