"""Text in CSV files that spreadsheets open."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are wide forms of the first, which spreadsheets take for them."""


def cell(text: str) -> str:
    """The text of a cell. What a spreadsheet would compute, a formula, has a quote before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text
