"""The command line: `swin-umamba`."""

from __future__ import annotations

import typer

from swin_umamba.cli.console import show_warnings_in_one_line
from swin_umamba.cli.convert import convert
from swin_umamba.cli.demo import demo
from swin_umamba.cli.doctor import doctor
from swin_umamba.cli.evaluate import evaluate
from swin_umamba.cli.export import export
from swin_umamba.cli.nnunet_path import nnunet_path
from swin_umamba.cli.predict import predict
from swin_umamba.cli.report import report
from swin_umamba.cli.summary import summary
from swin_umamba.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    name="swin-umamba",
    help="Swin-UMamba: medical image segmentation with selective scans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def _main() -> None:
    show_warnings_in_one_line()


app.command()(convert)
app.command()(demo)
app.command()(doctor)
app.command()(evaluate)
app.command()(export)
app.command()(nnunet_path)
app.command()(predict)
app.command()(report)
app.command()(summary)
app.command()(train)
