"""What all commands share: the consoles, and errors as one line each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console
from rich.markup import escape

from swin_umamba.errors import UserError

# What the extra `train` brings, by the names that are imported.
TRAIN_PACKAGES = ("accelerate", "imageio", "matplotlib", "monai", "nibabel", "scipy", "tifffile")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def told() -> Iterator[None]:
    """Print a UserError as one line, without a traceback, and exit with status 1."""
    try:
        yield
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TRAIN_PACKAGES:
            raise
        message = f"this needs {error.name}: pip install 'swin-umamba[train]'"
    else:
        return
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(1)


def show_warnings_in_one_line() -> None:
    """Print warnings as one line on stderr, without the source line that raised them."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        err.print(f"[yellow]warning:[/] {escape(str(message))}", soft_wrap=True)

    warnings.showwarning = show
