"""The batch size that a plan proposes, where nobody names one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from predict_helpers import plan_of

from swin_umamba.data import CachedCases, Split
from swin_umamba.runs.config import TrainConfig
from swin_umamba.train import from_dataset
from swin_umamba.train.from_dataset import Prepared, with_planned_batch


@pytest.mark.parametrize(
    ("proposed", "amp", "size", "expected"),
    [
        *((12, "auto", 1, 12), (13, "auto", 2, 12), (13, "off", 1, 6), (3, "auto", 4, 4)),
        *((None, "auto", 1, 2), (2, "off", 1, 1)),
    ],
)
def test_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, proposed: int | None, amp: str, size: int, expected: int
) -> None:
    monkeypatch.setattr(from_dataset, "pick_device", lambda name: torch.device("cuda"))
    if size > 1:
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", str(size))
    found = with_planned_batch(_prepared(proposed, amp))
    assert found.config.batch_size == expected


def test_on_a_cpu() -> None:
    prepared = _prepared(12, "auto")
    on_cpu = replace(prepared, config=prepared.config.changed({"device": "cpu"}))
    assert with_planned_batch(on_cpu).config.batch_size == 2


def _prepared(proposed: int | None, amp: str) -> Prepared:
    plan = plan_of(2, batch_size=proposed)
    none = CachedCases([])
    return Prepared(TrainConfig(amp=amp), plan, Split((), ()), none, none)
