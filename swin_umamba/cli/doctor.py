"""`swin-umamba doctor`: what is installed, and what works."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from swin_umamba.cli.console import TRAIN_PACKAGES, err, out, visible


def doctor() -> None:
    """Show versions, devices, and which backends and optional packages work, or why not."""
    with err.status("Checking the installation"):
        from swin_umamba_ops import __main__ as environment
        from swin_umamba_ops import available_backends

        backends = available_backends()
        sections = {
            "Versions": list(environment.versions()),
            "Devices": list(environment.devices()),
            "Build": list(environment.build()),
        }
    for title, rows in sections.items():
        _section(title, rows)
    _section(
        "Backends, fastest first",
        (
            (name, Text("usable", "green") if reason is None else _lacking("no", reason))
            for name, reason in backends.items()
        ),
    )
    _section("For training and the demo", map(_package, TRAIN_PACKAGES))


def _package(name: str) -> tuple[str, str | Text]:
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, _lacking("not installed", "pip install 'swin-umamba[train]'")


def _lacking(word: str, reason: str) -> Text:
    return Text.assemble((f"{word}:", "yellow"), " ", visible(reason))


def _section(title: str, rows: Iterable[tuple[str, str | Text]]) -> None:
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None
    )
    table.add_column(style="cyan", no_wrap=True, min_width=20)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    out.print(table)
    out.print()
