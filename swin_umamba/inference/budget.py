"""Memory limits of prediction, checked before allocating."""

from __future__ import annotations

from swin_umamba.errors import UserError

BUDGET = 16 << 30
"""Maximum bytes of one array: a batch of windows, or the logits of a row of them."""


def require_affordable(values: int, what: str, reason: str) -> None:
    """Raise UserError, saying what and why, if this many float32 values exceed the budget."""
    size = 4 * values
    if size > BUDGET:
        raise UserError(
            f"{what} would take {_words(size)} of memory, more than the limit of {_words(BUDGET)}:"
            f" {reason}"
        )


def _words(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} PiB"
