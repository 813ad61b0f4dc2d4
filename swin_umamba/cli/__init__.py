"""The command line `swin-umamba`; its commands are assembled in `application`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swin_umamba.cli.interrupts import leaving_at_once

if TYPE_CHECKING:
    from swin_umamba.cli.application import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with leaving_at_once():
        from swin_umamba.cli.application import app
    return app
