"""`python -m swin_umamba.cli`, for where the script `swin-umamba` is not on the path."""

from swin_umamba.cli import app

app(prog_name="swin-umamba")
