"""Show warnings and log records of libraries as short single lines on stderr, with a limit."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from typing import TextIO

from swin_umamba.cli.console import warning

EACH = 5  # messages per origin; each of a thousand files may cause one
LONG = 400  # letters


class Remarks:
    """Shows messages until there have been too many from one origin."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int]] = Counter()

    def show(self, text: str, origin: tuple[str, int]) -> None:
        """Print a message. origin: the file and line of code that caused it."""
        self._seen[origin] += 1
        if self._seen[origin] > EACH:
            return
        text = " ".join(text.split())
        text = text if len(text) <= LONG else text[: LONG - 3] + "..."
        last = " (more of the same are not shown)" if self._seen[origin] == EACH else ""
        warning(text + last)


class _Handler(logging.Handler):
    """Handles log records without another handler, which Python would print unformatted."""

    def __init__(self, remarks: Remarks) -> None:
        super().__init__(logging.WARNING)
        self._remarks = remarks

    def emit(self, record: logging.LogRecord) -> None:
        self._remarks.show(record.getMessage(), (record.pathname, record.lineno))


def show_remarks_in_one_line() -> None:
    """Print warnings and log records as one line each.

    Warnings for programmers, such as deprecations, are dropped unless Python's option -W or
    PYTHONWARNINGS asks for them.
    """
    remarks = Remarks()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        remarks.show(str(message), (filename, lineno))

    warnings.showwarning = show
    logging.lastResort = _Handler(remarks)
    if not sys.warnoptions:
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
