"""Errors caused by the input rather than by the program."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """User input is missing, damaged or inconsistent; the message says what and where.

    The command line prints only the message and exits with status 1.
    """


class CombinedUserError(UserError):
    """Several errors, one per line. head: what they have in common."""

    def __init__(self, head: str, messages: Sequence[str]) -> None:
        super().__init__(head + "".join(f"\n- {message}" for message in messages))
        self.head, self.messages = head, tuple(messages)
