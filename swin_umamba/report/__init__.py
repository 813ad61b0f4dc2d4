"""`write_report`: one page about a training run: how it went, and its results."""

from swin_umamba.report.writing import write_report

__all__ = ["write_report"]
