"""Fixtures of the training tests."""

from __future__ import annotations

from run_fixtures import interruptible, one_thread

__all__ = ["interruptible", "one_thread"]
