"""Errors that are the input's, not the program's."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave is missing, damaged or does not fit; the message says what and where.

    The command line prints the message alone and exits with status 1.
    """
