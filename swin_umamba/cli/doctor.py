"""`swin-umamba doctor`: what is installed here, and what works."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from swin_umamba.cli.console import TRAIN_PACKAGES, out
from swin_umamba_ops import __main__ as environment
from swin_umamba_ops import available_backends


def doctor() -> None:
    """Show versions, devices, and each backend and optional package: usable, or why not."""
    _section("Versions", environment.versions())
    _section("Devices", environment.devices())
    _section("Build", environment.build())
    _section(
        "Backends, fastest first",
        (
            (name, "[green]usable[/]" if reason is None else f"[yellow]no:[/] {escape(reason)}")
            for name, reason in available_backends().items()
        ),
        markup=True,
    )
    _section("For training and the demo", map(_package, TRAIN_PACKAGES), markup=True)


def _package(name: str) -> tuple[str, str]:
    try:
        return name, escape(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return name, "[yellow]not installed:[/] pip install 'swin-umamba\\[train]'"


def _section(title: str, rows: Iterable[tuple[str, str]], markup: bool = False) -> None:
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None
    )
    table.add_column(style="cyan", no_wrap=True, min_width=20)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), value if markup else escape(value))
    out.print(table)
    out.print()
