"""The command line: `swin-umamba`, whose commands are gathered in `application`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swin_umamba.cli.application import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported here, where Ctrl-C during the imports can be met without a traceback.
    try:
        from swin_umamba.cli.application import app
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    return app
