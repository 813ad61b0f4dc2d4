"""Checks of arguments."""

from __future__ import annotations


def check_positive(**values: int) -> None:
    """Raise ValueError naming the first of `values`, by keyword, that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
