"""Text in CSV files that spreadsheets open."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """The text of a cell. What a spreadsheet would compute, a formula, has a quote before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text
