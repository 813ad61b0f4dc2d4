"""Values read from a run's log."""

from __future__ import annotations

import pytest

from swin_umamba.runs.log import waiting_share


def test_the_share_of_waiting_is_that_of_the_steps_time() -> None:
    records = [
        {"iteration": 1, "step": 3.0, "waited": 1.0, "seconds": 30.0},
        {"iteration": 2, "step": 1.0, "waited": 0.0, "seconds": 60.0},
        {"iteration": 3, "loss": 1.0},  # of an older log
    ]
    assert waiting_share(records) == pytest.approx(0.25)
    assert waiting_share(records[2:]) is None
    assert waiting_share([]) is None
