"""Errors that are the input's, not the program's."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something the user gave is missing, damaged or does not fit; the message says what and where.

    The command line prints the message alone and exits with status 1.
    """


class CombinedUserError(UserError):
    """Several at once, each in a line of its own. head: what they have in common."""

    def __init__(self, head: str, messages: Sequence[str]) -> None:
        super().__init__(head + "".join(f"\n- {message}" for message in messages))
        self.head, self.messages = head, tuple(messages)
