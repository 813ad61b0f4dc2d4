"""What libraries say beside their work: a line each on stderr, shortened, and not without end."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from typing import TextIO

from swin_umamba.cli.console import problem

EACH = 5  # remarks of one origin; of a thousand files, each may give rise to one
LONG = 400  # letters


class Remarks:
    """Shows remarks until there have been many of one origin."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int]] = Counter()

    def show(self, text: str, origin: tuple[str, int]) -> None:
        """Print a remark. origin: the file and line of code that made it."""
        self._seen[origin] += 1
        if self._seen[origin] > EACH:
            return
        text = " ".join(text.split())
        text = text if len(text) <= LONG else text[: LONG - 3] + "..."
        last = " (more of the same are not shown)" if self._seen[origin] == EACH else ""
        problem(text + last, word="warning", style="yellow")


class _Handler(logging.Handler):
    """Of records that no other handler takes, which Python prints as they are."""

    def __init__(self, remarks: Remarks) -> None:
        super().__init__(logging.WARNING)
        self._remarks = remarks

    def emit(self, record: logging.LogRecord) -> None:
        self._remarks.show(record.getMessage(), (record.pathname, record.lineno))


def show_remarks_in_one_line() -> None:
    """Print warnings, and what is logged, as one line each.

    What libraries announce to programmers, as that a name will go, is left out unless Python's
    option -W or PYTHONWARNINGS says what to show.
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
