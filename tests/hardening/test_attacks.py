"""A few attacks of each kind; `python tests/hardening/campaign.py` makes thousands."""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import pytest
from attacks import ATTACKS, REFUSED, RIGHT
from made_once import made_once
from squares import train_on_squares

ROUNDS = int(os.environ.get("HARDENING_ROUNDS", "25"))


@pytest.mark.parametrize("kind", ATTACKS)
def test_nothing_but_a_refusal(
    kind: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = made_once(tmp_path_factory, "squares", train_on_squares) / "run"
    outcomes = set()
    for i in range(ROUNDS):
        work = tmp_path / str(i)
        work.mkdir()
        outcomes.add(ATTACKS[kind](random.Random(zlib.crc32(kind.encode()) + i), run, work))
    # An attack that is always refused, or never, tests nothing.
    assert outcomes == {RIGHT, REFUSED}
