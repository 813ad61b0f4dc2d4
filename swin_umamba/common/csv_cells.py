"""Text in CSV files that spreadsheets open."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the full-width forms of the first four, which spreadsheets treat alike."""


def cell(text: str) -> str:
    """The text of a cell. Anything a spreadsheet would evaluate gets a leading quote."""
    return f"'{text}" if text.startswith(_FORMULA) else text
