"""`write_report`: one page that tells how a training run went and what it came to."""

from swin_umamba.report.writing import write_report

__all__ = ["write_report"]
