"""`python -m swin_umamba.cli`, for environments where the script `swin-umamba` is not on PATH."""

from swin_umamba.cli import app

app(prog_name="swin-umamba")
