"""Common base of all run configs: typed records stored in a file of their own name."""

from __future__ import annotations

from typing import ClassVar

from swin_umamba.common.records import Record

CONFIG = "config.json"  # of a training


class RunConfig(Record):
    """The config of a run. FILE: its name in the run folder.

    CHANGEABLE: fields that may differ when a run is resumed: length, intervals and devices, but
    nothing that affects what is learned.
    """

    FILE: ClassVar[str]
    CHANGEABLE: ClassVar[frozenset[str]]

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"{name}: got {getattr(self, name)!r}, expected {expected}")
