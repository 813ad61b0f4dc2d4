"""The commands together, and what holds for all of them: exit codes and encodings.

Exit status: 0 when done, 1 for an error, 2 for wrong usage, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer

from swin_umamba.cli.cache import cache
from swin_umamba.cli.console import problem
from swin_umamba.cli.convert import convert
from swin_umamba.cli.demo import demo
from swin_umamba.cli.doctor import doctor
from swin_umamba.cli.evaluate import evaluate
from swin_umamba.cli.export import export
from swin_umamba.cli.interrupts import exit_status_kept
from swin_umamba.cli.nnunet_path import nnunet_path
from swin_umamba.cli.predict import predict
from swin_umamba.cli.prepare import prepare
from swin_umamba.cli.pretrain import pretrain
from swin_umamba.cli.remarks import show_remarks_in_one_line
from swin_umamba.cli.report import report
from swin_umamba.cli.summary import summary
from swin_umamba.cli.train import Train, train
from swin_umamba.common.files import reason_of

TRACEBACK = "SWIN_UMAMBA_TRACEBACK"  # a variable: show tracebacks of unexpected errors


class Application(typer.Typer):
    """A Typer that ends without a traceback, on terminals of any encoding."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        try:
            with exit_status_kept():
                return super().__call__(*args, **options)
        except Exception as error:  # the boundary: users get a line
            if os.environ.get(TRACEBACK):
                raise
            problem(_in_words(error))
            sys.exit(1)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        # Commands meet what comes of files: this is what they print.
        return f"{error.filename or 'the output'}: {reason_of(error)}"
    return (
        f"unexpected {type(error).__name__}: {error}. This is a fault in swin-umamba: please report"
        f" it with the traceback that {TRACEBACK}=1 shows"
    )


app = Application(
    name="swin-umamba",
    help="Swin-UMamba: medical image segmentation with selective scans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    show_remarks_in_one_line()


app.command()(cache)
app.command()(convert)
app.command()(demo)
app.command()(doctor)
app.command()(evaluate)
app.command()(export)
app.command()(nnunet_path)
app.command()(predict)
app.command()(prepare)
app.command()(pretrain)
app.command()(report)
app.command()(summary)
app.command(cls=Train)(train)
