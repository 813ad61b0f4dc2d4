"""Assembles the commands, and handles exit codes and terminal encodings for all of them.

Exit status: 0 when done, 1 for an error, 2 for wrong usage, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from swin_umamba.cli.cache import cache
from swin_umamba.cli.commands import Command, Group, in_paragraphs
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
from swin_umamba.cli.receptive_field import receptive_field
from swin_umamba.cli.remarks import show_remarks_in_one_line
from swin_umamba.cli.report import report
from swin_umamba.cli.summary import summary
from swin_umamba.cli.train import Train, train
from swin_umamba.common.files import reason_of

# environment variable that enables tracebacks of unexpected errors
TRACEBACK = "SWIN_UMAMBA_TRACEBACK"


_PLAIN = "swin-umamba-plain"  # replacements on terminals that cannot encode these characters
_PLAIN_SIGNS = {"\u2020": "+", "\u2026": "...", "\u2013": "-", "\u00d7": "x", "\u2022": "*"}


def _in_plain_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    """A codecs error handler: characters of help and tables become look-alikes, others escapes."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in _PLAIN_SIGNS:
        return _PLAIN_SIGNS[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(_PLAIN, _in_plain_signs)


class Application(typer.Typer):
    """A Typer app that never ends with a traceback, on terminals of any encoding."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors=_PLAIN)
        try:
            with exit_status_kept():
                return super().__call__(*args, **options)
        except Exception as error:  # outermost boundary: users get one line
            if os.environ.get(TRACEBACK):
                raise
            problem(_in_words(error))
            sys.exit(1)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        # Commands handle errors of input files themselves: this is an error of printing.
        return f"{error.filename or 'the output'}: {reason_of(error)}"
    return (
        f"unexpected {type(error).__name__}: {error}. This is a bug in swin-umamba: please report"
        f" it with the traceback that {TRACEBACK}=1 shows"
    )


app = Application(
    name="swin-umamba",
    help="Swin-UMamba: medical image segmentation with selective scans.",
    epilog="Exit codes: 0 done, 1 error, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from swin_umamba_ops import __version__

        typer.echo(f"swin-umamba {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    show_remarks_in_one_line()


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Getting started": (demo, doctor),
    "From images to results": (prepare, train, predict, evaluate, report, export),
    "More": (pretrain, receptive_field, convert, summary, cache, nnunet_path),
}
for _title, _functions in _COMMANDS.items():
    for _function in _functions:
        _class = Train if _function is train else Command
        _help = in_paragraphs(_function.__doc__ or "")
        app.command(cls=_class, help=_help, rich_help_panel=_title)(_function)
