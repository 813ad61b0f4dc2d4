"""Collect everything that is wrong with a dataset, and report it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from swin_umamba.errors import CombinedUserError, UserError


class Problems:
    """Collects messages; `raise_any` raises one UserError with all of them, in order.

    where: what the problems are in, such as a dataset's folder. A single message is raised
    unchanged.
    """

    def __init__(self, where: object) -> None:
        self.where = where
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        self.messages.append(message)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Record a UserError raised inside the context instead of propagating it."""
        try:
            yield
        except CombinedUserError as error:
            self.messages += error.messages
        except UserError as error:
            self.add(str(error))

    def raise_any(self) -> None:
        if len(self.messages) == 1:
            raise UserError(self.messages[0])
        if self.messages:
            head = f"{len(self.messages)} problems in {self.where}:"
            raise CombinedUserError(head, self.messages)
