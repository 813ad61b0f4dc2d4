"""The command line, as the tests of prediction call it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from swin_umamba.cli import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
